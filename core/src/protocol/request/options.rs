//! What a client asks for beyond a slot.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde_json::Map;

use crate::id::{DisplayName, ResumeToken};
use crate::ledger::Evict;

/// What a client asks for beyond a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthenticateOptions {
    /// The device that the client runs on.
    pub device: Option<DisplayName>,
    /// What the client calls itself, for people.
    pub label: Option<DisplayName>,
    /// The token of the session that it wants to resume.
    pub resume: Option<ResumeToken>,
    /// The sessions to evict if no slot is free.
    pub evict: Option<Evict>,
    /// Whether to be denied a slot if the session cannot be resumed.
    pub must_resume: bool,
    /// How long to wait in line if no slot is free, in whole milliseconds, at most [`AuthenticateOptions::MAX_WAIT`]. `None`:
    /// not at all.
    pub wait: Option<Duration>,
    /// Whether the label was longer than a [`DisplayName`], and was cut. Only the server sees that.
    pub is_label_cut: bool,
    /// The keys that this version does not know, at most [`AuthenticateOptions::MAX_IGNORED`]. Only the server sees them.
    pub ignored: Box<[Box<str>]>,
}

impl AuthenticateOptions {
    /// The most ignored keys that a client is told of.
    pub const MAX_IGNORED: usize = 8;

    /// The longest wait in line. A client that wants to wait longer waits so long, and is told.
    pub const MAX_WAIT: Duration = Duration::from_secs(3600);

    pub(super) fn encode(&self, fields: &mut Map<String, serde_json::Value>) {
        let Self { device, label, resume, evict, must_resume, wait, is_label_cut: _, ignored: _ } = self;
        for (key, name) in [("device", device), ("label", label)] {
            if let Some(name) = name {
                fields.insert(key.into(), name.as_str().into());
            }
        }
        if let Some(resume) = resume {
            fields.insert("resume".into(), resume.text().into());
        }
        if *must_resume {
            fields.insert("if_not_resumed".into(), "refuse".into());
        }
        if let Some(wait) = wait {
            fields.insert("wait_ms".into(), u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into());
        }
        match evict {
            None => {}
            Some(Evict::Oldest) => {
                fields.insert("evict".into(), "oldest".into());
            }
            Some(Evict::Nobody) => {
                fields.insert("evict".into(), "nobody".into());
            }
            Some(Evict::Sessions(sessions)) => {
                let sessions: Vec<_> =
                    sessions.iter().map(|session| serde_json::json!(alloc::format!("{session}"))).collect();
                fields.insert("evict".into(), sessions.into());
            }
        }
    }
}
