//! `server limit`, `explain`, `end` and `forget`: an operator's orders from the command line.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use session_core::protocol::SessionState;
use session_core::{NodeId, SessionId, UserId};

use crate::admin::{
    AdminRequest, AdminService, DefaultWord, FullAction, LimitSourceName, NextOutcome, Override, SlotCount,
    UnlimitedWord, UserPatch, UserReport, socket,
};
use crate::config::{Config, StoreKind};
use crate::runtime::clock::format_rfc3339;
use crate::store::{LmdbStore, Store as _};

/// What was asked for on the command line.
#[derive(Debug)]
pub(crate) struct UserCommand {
    pub(crate) user: UserId,
    pub(crate) order: AdminRequest,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

/// What `server limit` is asked for.
#[derive(Debug, Args)]
pub(crate) struct LimitArguments {
    /// Whose limit
    #[arg(value_parser = UserId::parse)]
    user: UserId,
    /// How many slots the user may hold, whatever a token claims: 0 to 1024, where 0 admits nobody; `unlimited` is 1024;
    /// `default` is what a token claims, or else the server's. Without it the limit is shown
    #[arg(value_name = "N|unlimited|default", value_parser = limit)]
    limit: Option<Override<SlotCount>>,
    /// What happens when they are all taken
    #[arg(long, value_name = "WHAT", value_enum)]
    when_full: Option<WhenFullWord>,
    /// End the sessions that are beyond the limit then, those with the newest slots first
    #[arg(long)]
    enforce: bool,
    /// Change nothing; with --enforce, say who would be ended
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `server explain` and `server forget` are asked for.
#[derive(Debug, Args)]
pub(crate) struct UserArguments {
    /// Which user
    #[arg(value_parser = UserId::parse)]
    user: UserId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `server end` is asked for.
#[derive(Debug, Args)]
pub(crate) struct EndArguments {
    /// Whose sessions
    #[arg(value_parser = UserId::parse)]
    user: UserId,
    /// Which of them, 32 hexadecimal digits as `explain` shows them; without it all
    #[arg(value_parser = session)]
    session: Option<SessionId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhenFullWord {
    /// Another session is refused
    Deny,
    /// It takes the place of the oldest
    EvictOldest,
    /// What the server does
    Default,
}

impl LimitArguments {
    pub(crate) fn into_command(self) -> UserCommand {
        let Self { user, limit, when_full, enforce, dry_run, json } = self;
        let when_full = when_full.map(|word| match word {
            WhenFullWord::Deny => Override::To(FullAction::Deny),
            WhenFullWord::EvictOldest => Override::To(FullAction::EvictOldest),
            WhenFullWord::Default => Override::Default(DefaultWord::Default),
        });
        let is_change = limit.is_some() || when_full.is_some() || enforce;
        let change = UserPatch { limit, when_full, enforce, dry_run };
        UserCommand { user, order: if is_change { AdminRequest::Limit(change) } else { AdminRequest::Explain }, json }
    }
}

impl UserArguments {
    pub(crate) fn explain(self) -> UserCommand {
        UserCommand { user: self.user, order: AdminRequest::Explain, json: self.json }
    }

    pub(crate) fn forget(self) -> UserCommand {
        UserCommand { user: self.user, order: AdminRequest::Forget, json: self.json }
    }
}

impl EndArguments {
    pub(crate) fn into_command(self) -> UserCommand {
        UserCommand { user: self.user, order: AdminRequest::End(self.session), json: self.json }
    }
}

fn limit(text: &str) -> Result<Override<SlotCount>, String> {
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

fn session(text: &str) -> Result<SessionId, String> {
    SessionId::parse(text).ok_or_else(|| "expected 32 hexadecimal digits".into())
}

/// Gives the order to the server that runs on this data directory, or carries it out where none does. The exit code.
pub(crate) fn run(asked: &UserCommand, config: &Config, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    match smol::block_on(request(asked, config)) {
        Ok(report) if asked.json => {
            let json = serde_json::to_string(&report).expect("words and numbers always serialise");
            writeln!(out, "{json}").map(|()| 0)
        }
        Ok(report) => write!(out, "{}", describe(&report, &asked.order)).map(|()| 0),
        Err(words) => writeln!(err, "error: {words}").map(|()| 1),
    }
}

async fn request(UserCommand { user, order, .. }: &UserCommand, config: &Config) -> Result<UserReport, String> {
    if config.store == StoreKind::Memory {
        return Err("a server with store = \"memory\" takes no orders: it has no data directory".into());
    }
    if let Some(report) = socket::request(&config.data, user, order).await? {
        return Ok(report);
    }
    // A directory that is something else is not made one.
    if !LmdbStore::is_in(&config.data) {
        return Err(format!(
            "there is no data of a server in {}: name its directory with --data",
            config.data.display()
        ));
    }
    let node = NodeId::new(getrandom::u64().map_err(|error| error.to_string())?);
    let store = LmdbStore::open(&config.lmdb(), node).map_err(|error| error_chain(&error))?;
    let store = Arc::new(store);
    let operator = AdminService::new(Arc::<LmdbStore>::clone(&store), None, config.store_timeout);
    let report = operator.handle(user, order).await.map_err(|why| why.to_string());
    if store.close(Duration::from_secs(5)).await.is_err() {
        return Err("the store did not close in time".into());
    }
    report
}

/// An error with what caused it.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _infallible = write!(words, ": {error}");
        next = error.source();
    }
    words
}

/// For people.
fn describe(report: &UserReport, order: &AdminRequest) -> String {
    let UserReport { user, limit, rule, when_full, connections, sessions, next, ended, dry_run } = report;
    let mut text = String::new();
    let mut line = |words: String| {
        text += &words;
        text.push('\n');
    };
    let rule = match rule {
        LimitSourceName::Server => "the server's default, unless a token claims another",
        LimitSourceName::Token => "what the token claims",
        LimitSourceName::User => "set for this user",
    };
    if matches!(order, AdminRequest::Forget) {
        line(format!("user {:?} is forgotten", user.as_str()));
    }
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    line(format!("user {:?} holds {connections} slot{} of {limit} ({rule})", user.as_str(), plural(*connections)));
    if *when_full == FullAction::EvictOldest {
        line("when all are taken, another session takes the place of the oldest".into());
    }
    for holder in sessions {
        let session = &holder.session;
        let mut words = format!("  {} since {}", session.id, format_rfc3339(session.since));
        for (what, name) in [("label", &session.label), ("device", &session.device)] {
            if let Some(name) = name {
                let _infallible = write!(words, ", {what} {:?}", name.as_str());
            }
        }
        if let Some(from) = &holder.from {
            let _infallible = write!(words, ", from {from}");
        }
        match (session.state, session.until) {
            (SessionState::Live, _) => {}
            (SessionState::Lingering, Some(until)) => {
                let _infallible = write!(words, ", lost, lingers until {}", format_rfc3339(until));
            }
            (SessionState::Lingering, None) => words += ", lost",
        }
        line(words);
    }
    let verb = if *dry_run { "would be ended" } else { "ended" };
    for session in ended {
        line(format!("  {session} {verb}"));
    }
    if *dry_run && ended.is_empty() {
        line("nobody would be ended".into());
    }
    line(match next {
        NextOutcome::Granted { ended } if ended.is_empty() => "the next session would be granted a slot".into(),
        NextOutcome::Granted { ended } => {
            format!("the next session would be granted a slot, and {} would lose theirs", ended.join(" and "))
        }
        NextOutcome::Denied if *limit == 0 => "the next session would be refused: the limit is 0".into(),
        NextOutcome::Denied => "the next session would be refused: all slots are taken".into(),
    });
    text
}
