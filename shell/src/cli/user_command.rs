//! `server limit`, `explain`, `end` and `forget`: an operator's commands.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use session_core::ledger::{LimitSource, WhenFull};
use session_core::protocol::StatusWord;
use session_core::{NodeId, SessionId, UserId};
use smol::Timer;

use crate::admin::{
    AdminRequest, AdminService, BoundSocket, DefaultWord, NextOutcome, Override, SessionReport, SlotCount,
    UnlimitedWord, UserPatch, UserReport, socket,
};
use crate::config::{Config, StoreKind, when_full_values};
use crate::runtime::rfc3339::format_rfc3339;
use crate::store::{LmdbStore, OpenError, Store as _};

/// How long to wait for the socket of a server that uses the directory. Longer than the server takes to notice that the
/// socket is gone.
const SOCKET_TIMEOUT: Duration = BoundSocket::CHECK_INTERVAL.saturating_mul(3);

/// A request from the command line.
#[derive(Debug)]
pub(crate) struct UserCommand {
    pub(crate) user: UserId,
    pub(crate) request: AdminRequest,
    /// Print JSON.
    pub(crate) json: bool,
}

/// The arguments of `server limit`.
#[derive(Debug, Args)]
pub(crate) struct LimitArguments {
    /// The user
    #[arg(value_parser = UserId::parse)]
    user: UserId,
    /// Maximum slots of the user, 0 to 1024; 0 denies every session, `unlimited` is 1024. It overrides a token's limit.
    /// `default` removes the override: a token's limit applies, or else the server's. Without this argument the command shows the limit
    #[arg(value_name = "N|unlimited|default", value_parser = parse_limit)]
    limit: Option<Override<SlotCount>>,
    /// What happens to a new session when all slots are taken
    #[arg(long, value_name = "WHAT", value_parser = when_full_parser())]
    when_full: Option<Override<WhenFull>>,
    /// End the sessions beyond the limit, those with the newest slots first
    #[arg(long)]
    enforce: bool,
    /// Change nothing; with --enforce, list the sessions that would end
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The arguments of `server explain` and `server forget`.
#[derive(Debug, Args)]
pub(crate) struct UserArguments {
    /// The user
    #[arg(value_parser = UserId::parse)]
    user: UserId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The arguments of `server end`.
#[derive(Debug, Args)]
pub(crate) struct EndArguments {
    /// The user
    #[arg(value_parser = UserId::parse)]
    user: UserId,
    /// The session's id, 32 hexadecimal digits, as `explain` shows it. With `count = devices`, all sessions of its device end.
    /// Without an id all sessions of the user end
    #[arg(value_parser = parse_session)]
    session: Option<SessionId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl LimitArguments {
    pub(crate) fn into_command(self) -> UserCommand {
        let Self { user, limit, when_full, enforce, dry_run, json } = self;
        let is_change = limit.is_some() || when_full.is_some() || enforce;
        let patch = UserPatch { limit, when_full, enforce, dry_run };
        UserCommand { user, request: if is_change { AdminRequest::Limit(patch) } else { AdminRequest::Explain }, json }
    }
}

impl UserArguments {
    pub(crate) fn explain(self) -> UserCommand {
        UserCommand { user: self.user, request: AdminRequest::Explain, json: self.json }
    }

    pub(crate) fn forget(self) -> UserCommand {
        UserCommand { user: self.user, request: AdminRequest::Forget, json: self.json }
    }
}

impl EndArguments {
    pub(crate) fn into_command(self) -> UserCommand {
        UserCommand { user: self.user, request: AdminRequest::End(self.session), json: self.json }
    }
}

fn parse_limit(text: &str) -> Result<Override<SlotCount>, String> {
    match text {
        "default" => Ok(Override::Default(DefaultWord::Default)),
        "unlimited" => Ok(Override::To(SlotCount::Unlimited(UnlimitedWord::Unlimited))),
        _ => match text.parse() {
            Ok(slots) if slots <= session_core::ledger::SlotLimit::MAX.slots() => {
                Ok(Override::To(SlotCount::Number(slots)))
            }
            Ok(_) | Err(_) => Err("expected a whole number from 0 to 1024, `unlimited` or `default`".into()),
        },
    }
}

/// The values of the key `when_full`, and `default`.
fn when_full_parser() -> impl TypedValueParser<Value = Override<WhenFull>> {
    let default = PossibleValue::new("default").help("Remove the override: the server's `when_full` applies");
    let names = when_full_values().map(|(_, name)| name);
    PossibleValuesParser::new(names.into_iter().chain([default])).map(|text| {
        let named = WhenFull::ALL.into_iter().find(|when_full| when_full.name() == text);
        named.map_or(Override::Default(DefaultWord::Default), Override::To)
    })
}

fn parse_session(text: &str) -> Result<SessionId, String> {
    SessionId::parse(text).ok_or_else(|| "expected 32 hexadecimal digits".into())
}

/// Sends the request to the server that runs on this data directory. Without such a server, handles it here. Returns the
/// exit code.
pub(crate) fn run(
    command: &UserCommand,
    config: &Config,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    match smol::block_on(request(command, config)) {
        Ok(report) if command.json => {
            let json = serde_json::to_string(&report).expect("strings and numbers always serialise");
            writeln!(out, "{json}").map(|()| 0)
        }
        Ok(report) => write!(out, "{}", describe(&report, &command.request)).map(|()| 0),
        Err(error) => writeln!(err, "error: {error}").map(|()| 1),
    }
}

async fn request(
    UserCommand { user, request: order, .. }: &UserCommand,
    config: &Config,
) -> Result<UserReport, String> {
    match config.store {
        StoreKind::Memory => {
            return Err("operator commands need a data directory, and store = \"memory\" has none".into());
        }
        StoreKind::Lmdb => {}
    }
    let node = NodeId::new(getrandom::u64().map_err(|error| error.to_string())?);
    let give_up_at = Instant::now() + SOCKET_TIMEOUT;
    let store = loop {
        if let Some(report) = socket::request(&config.data, user, order).await? {
            return Ok(report);
        }
        // Opening would create a store in a directory that has none, such as a mistyped one.
        if !LmdbStore::is_in(&config.data) {
            return Err(format!(
                "there is no server data in {}: name the data directory with --data",
                config.data.display()
            ));
        }
        match LmdbStore::open(&config.lmdb(), node) {
            Ok(store) => break Arc::new(store),
            Err(OpenError::InUse { holder, .. }) if give_up_at <= Instant::now() => {
                return Err(format!(
                    "{holder} uses {}, but does not answer at {}. If that is a server, its log says why it cannot open that \
                     socket; it keeps trying",
                    config.data.display(),
                    socket::path(&config.data).display()
                ));
            }
            // A server that starts or stops, or whose socket was deleted, which it notices soon.
            Err(OpenError::InUse { .. }) => drop(Timer::after(Duration::from_millis(100)).await),
            Err(error) => return Err(error_chain(&error)),
        }
    };
    let operator = AdminService::new(Arc::<LmdbStore>::clone(&store), None, config.store_timeout);
    let report = operator.handle(user, order).await.map_err(|why| why.to_string());
    if store.close(Duration::from_secs(5)).await.is_err() {
        return Err("the store did not close in time".into());
    }
    report
}

/// The error and its causes.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _infallible = write!(message, ": {error}");
        next = error.source();
    }
    message
}

/// The report as text for people.
fn describe(report: &UserReport, request: &AdminRequest) -> String {
    let UserReport { user, limit, limit_source, when_full, connections, sessions, next, ended, dry_run } = report;
    let mut text = String::new();
    let mut line = |message: String| {
        text += &message;
        text.push('\n');
    };
    let limit_source = match limit_source {
        LimitSource::Server => "the server's default, unless a token has another",
        LimitSource::Token => "the token's limit",
        LimitSource::User => "per-user override",
    };
    if matches!(request, AdminRequest::Forget) {
        line(format!("user {:?} is deleted", user.as_str()));
    }
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    line(format!(
        "user {:?} holds {connections} slot{} of {limit} ({limit_source})",
        user.as_str(),
        plural(*connections)
    ));
    if *when_full == WhenFull::EvictOldest {
        line("when all slots are taken, a new session ends the one with the oldest slot".into());
    }
    for SessionReport { session, from, client_prefix } in sessions {
        let mut message = format!("  {} since {}", session.id, format_rfc3339(session.since));
        for (what, name) in [("label", &session.label), ("device", &session.device)] {
            if let Some(name) = name {
                let _infallible = write!(message, ", {what} {:?}", name.as_str());
            }
        }
        if let Some(from) = from {
            let _infallible = write!(message, ", from {from}");
            if let Some(prefix) = client_prefix.as_ref().filter(|prefix| **prefix != from.to_string()) {
                let _infallible = write!(message, " (counted as {prefix})");
            }
        }
        match (session.state, session.until) {
            (StatusWord::Live, _) => {}
            (StatusWord::Lingering, Some(until)) => {
                let _infallible = write!(message, ", lost, kept until {}", format_rfc3339(until));
            }
            (StatusWord::Lingering, None) => message += ", lost",
        }
        line(message);
    }
    let verb = if *dry_run { "would end" } else { "ended" };
    for session in ended {
        line(format!("  {session} {verb}"));
    }
    if *dry_run && ended.is_empty() {
        line("no session would end".into());
    }
    line(match next {
        NextOutcome::Granted { ended } if ended.is_empty() => "the next session would get a slot".into(),
        NextOutcome::Granted { ended } => {
            format!("the next session would get a slot, and end {}", ended.join(" and "))
        }
        NextOutcome::Denied if *limit == 0 => "the next session would be denied: the limit is 0".into(),
        NextOutcome::Denied => "the next session would be denied: all slots are taken".into(),
    });
    text
}
