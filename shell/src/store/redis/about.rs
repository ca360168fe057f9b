//! What servers say of themselves to the others, for operators.
//!
//! Each node id has a key of its own, with a [`NodeAbout`] as JSON. These keys decide nothing, so they may expire: that removes those
//! of dead nodes. All are on the shard of the first part, so that one call reads them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::Connection;
use session_core::{NodeId, Timestamp};

use super::link::LinkError;
use super::locator::Locator;
use crate::runtime::events::log_event;
use crate::store::nodes::{NodeAbout, SharedSettings};

/// When the key of a dead node expires, in seconds: after the node itself is forgotten.
const EXPIRY_SECONDS: u64 = 2 * 60 * 60;

/// What this server says of itself.
pub(super) struct About {
    started_at: Timestamp,
    settings: Mutex<Option<SharedSettings>>,
    is_new: AtomicBool,
    has_other_format: AtomicBool,
    /// Why this server must not use the keys any more.
    conflict: Mutex<Option<String>>,
}

impl About {
    /// Of a server that starts now, and has not said anything yet.
    pub(super) fn new(started_at: Timestamp) -> Self {
        Self {
            started_at,
            settings: Mutex::default(),
            is_new: AtomicBool::default(),
            has_other_format: AtomicBool::default(),
            conflict: Mutex::default(),
        }
    }

    /// Replaces the settings. They are written soon.
    pub(super) fn set_settings(&self, settings: SharedSettings) {
        *lock(&self.settings) = Some(settings);
        self.is_new.store(true, Ordering::SeqCst);
    }

    /// What is written, with the number of sessions. `None` before the settings are known.
    pub(super) fn with_sessions(&self, name: &str, sessions: usize) -> Option<NodeAbout> {
        let settings = lock(&self.settings).clone()?;
        Some(NodeAbout {
            name: name.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at.millis(),
            sessions: sessions as u64,
            renamed_to: None,
            settings,
        })
    }

    /// Whether the settings were replaced since this was asked last.
    pub(super) fn take_is_new(&self) -> bool {
        self.is_new.swap(false, Ordering::SeqCst)
    }

    /// Whether servers of another format use the keys.
    pub(super) fn has_other_format(&self) -> bool {
        self.has_other_format.load(Ordering::SeqCst)
    }

    /// Why this server must not use the keys any more, if it must not.
    pub(super) fn conflict(&self) -> Option<String> {
        lock(&self.conflict).clone()
    }

    /// Notes what the last comparison of the formats has shown.
    pub(super) fn set_conflict(&self, conflict: Option<String>) {
        let is_conflict = conflict.is_some();
        if let Some(error) = &conflict
            && !self.has_other_format()
        {
            log_event!(shared_store_other_format { error: &**error });
        }
        *lock(&self.conflict) = conflict;
        self.has_other_format.store(is_conflict, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key of what a node says of itself.
fn key(prefix: &str, node: NodeId) -> String {
    format!("{{{prefix}:0}}:about:{node}")
}

/// Writes what a node says of itself.
pub(super) fn write(
    connection: &mut Connection,
    prefix: &str,
    node: NodeId,
    about: &NodeAbout,
) -> Result<(), LinkError> {
    let about = serde_json::to_vec(about).expect("strings and numbers always serialise");
    Ok(redis::cmd("SET").arg(key(prefix, node)).arg(about).arg("EX").arg(EXPIRY_SECONDS).exec(connection)?)
}

/// Removes it.
pub(super) fn remove(connection: &mut Connection, prefix: &str, node: NodeId) -> Result<(), LinkError> {
    Ok(redis::cmd("DEL").arg(key(prefix, node)).exec(connection)?)
}

/// What these nodes say of themselves, in their order. `None` where nothing can be read.
pub(super) fn read(locator: &Locator, ids: &[NodeId]) -> Result<Vec<Option<NodeAbout>>, LinkError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = locator.connect_to_first()?;
    let keys: Vec<_> = ids.iter().map(|id| key(&locator.config().prefix, *id)).collect();
    let found: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(keys).query(&mut connection)?;
    Ok(found.into_iter().map(|bytes| serde_json::from_slice(&bytes?).ok()).collect())
}
