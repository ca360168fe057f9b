//! `server limit`, `explain`, `end` and `forget`: an operator's commands.

use std::io::{self, Write};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use session_core::ledger::WhenFull;
use session_core::{SessionId, UserId};

use super::admin_access;
use super::user_text::describe;
use crate::admin::{
    AdminRequest, AdminService, Change, DefaultWord, Override, SlotCount, UnlimitedWord, UserPatch, UserReport, socket,
};
use crate::config::{Config, when_full_values};

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

/// The exit code of a request that there was nothing to do for.
pub(crate) const NOTHING_TO_DO: u8 = 6;

/// A question is always answered. A change may have been made already, or not be needed.
fn exit_code(report: &UserReport, request: &AdminRequest) -> u8 {
    match (request, report.change) {
        (AdminRequest::Explain, _) | (_, Change::Made | Change::WouldBeMade) => 0,
        (AdminRequest::Limit(_) | AdminRequest::End(_) | AdminRequest::Forget, Change::None) => NOTHING_TO_DO,
    }
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
        Ok(report) => {
            let code = exit_code(&report, &command.request);
            if command.json {
                let json = serde_json::to_string(&report).expect("strings and numbers always serialise");
                writeln!(out, "{json}").map(|()| code)
            } else {
                write!(out, "{}", describe(&report, &command.request)).map(|()| code)
            }
        }
        Err(error) => writeln!(err, "error: {error}").map(|()| 1),
    }
}

async fn request(UserCommand { user, request, .. }: &UserCommand, config: &Config) -> Result<UserReport, String> {
    let server = async || socket::request(&config.data, user, request).await;
    let store = async |service: &AdminService| service.handle(user, request).await.map_err(|why| why.to_string());
    admin_access::ask(config, server, store).await
}
