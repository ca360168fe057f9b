//! One connection to the shared store.

use std::time::Duration;

use redis::{Client, Connection, ErrorKind, RedisError, ServerError, ServerErrorKind, Value};
use session_core::cluster::{Answer, AnswerBody, HistoryId, Request, RequestId};
use session_core::ledger::StoreError;
use thiserror::Error;

use super::command::{BucketNames, Packer};
use super::config::{RedisConfig, RedisConfigError};
use super::reply;
use super::rights::{self, MissingRights};
use super::script::Script;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};

static LOG: LogRateLimiter = LogRateLimiter::new();

/// A connection to the shared store, which knows the history of the server behind it.
pub(super) struct Link {
    connection: Connection,
    /// How the server calls each script.
    hashes: Vec<String>,
    /// The server's history when it last answered. No history comes again, so if two answers name the same one, the server has had
    /// it all the time in between.
    history: HistoryId,
}

/// A request of a bucket.
pub(super) struct Sent<'a> {
    pub bucket: u16,
    pub names: &'a BucketNames,
    pub id: RequestId,
    pub request: Request,
}

/// An answer to a bucket.
pub(super) struct Received {
    pub bucket: u16,
    pub id: RequestId,
    pub answer: Answer,
}

/// Why the shared store cannot be used, or not on this connection.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] RedisConfigError),
    /// The connection fails, or the server refuses.
    #[error("{0}{hint}", hint = hint(.0))]
    Redis(RedisError),
    /// The user lacks rights.
    #[error("the user has not all rights that are needed ({denied}). Give it these: ACL SETUSER <user> {needed}")]
    Rights {
        /// What the user may not do.
        denied: String,
        /// All that it has to be allowed to.
        needed: String,
    },
    /// The server is too old.
    #[error("the server has version {0}, and at least version 7.0 of Redis, or any Valkey, is needed")]
    TooOld(String),
    /// It is not a primary.
    #[error("the server is a replica: name its primary, which takes writes")]
    Replica,
    /// It says something that this software does not understand.
    #[error("the server does not answer as Redis does: {0}")]
    Foreign(&'static str),
    /// It does not do what a primary does.
    #[error("the server refuses: {0}")]
    Refused(String),
}

impl From<RedisError> for LinkError {
    /// The error is part of the message, so it is not its source as well: it would be printed twice.
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<MissingRights> for LinkError {
    fn from(MissingRights { denied, needed }: MissingRights) -> Self {
        Self::Rights { denied, needed }
    }
}

/// What an operator should do about an error.
fn hint(error: &RedisError) -> &'static str {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return ": user or password are wrong";
    }
    match error.code() {
        Some("NOAUTH") => ": it needs a password (redis_password_file or SESSIONS_REDIS_PASSWORD)",
        Some("LOADING") => ": it is still reading its data, try again soon",
        _ => "",
    }
}

impl Link {
    /// Connects, and checks that the server will do. Each call takes at most `timeout`.
    pub(super) fn open(config: &RedisConfig, timeout: Duration) -> Result<Self, LinkError> {
        Self::open_unexplained(config, timeout).map_err(|error| match &error {
            LinkError::Redis(redis) => rights::missing(redis, &config.prefix).map_or(error, LinkError::from),
            LinkError::Config(_)
            | LinkError::Rights { .. }
            | LinkError::TooOld(_)
            | LinkError::Replica
            | LinkError::Foreign(_)
            | LinkError::Refused(_) => error,
        })
    }

    fn open_unexplained(config: &RedisConfig, timeout: Duration) -> Result<Self, LinkError> {
        let mut connection = connect(config, timeout)?;
        let server: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
        check_version(&server)?;
        let load = |script: Script, connection: &mut Connection| {
            redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query::<String>(connection)
        };
        let hashes = Script::ALL.into_iter().map(|script| load(script, &mut connection)).collect::<Result<_, _>>()?;
        let replication: Value = redis::cmd("INFO").arg("replication").query(&mut connection)?;
        let history = reply::parse_history(&replication).ok_or(LinkError::Replica)?;
        if let Some(missing) = rights::check(&mut connection, &config.prefix)? {
            return Err(missing.into());
        }
        Ok(Self { connection, hashes, history })
    }

    /// Warns if the server may throw keys away.
    pub(super) fn check_memory_policy(&mut self) -> Result<(), LinkError> {
        let memory: String = redis::cmd("INFO").arg("memory").query(&mut self.connection)?;
        let policy = field(&memory, "maxmemory_policy").unwrap_or("noeviction");
        if policy != "noeviction" {
            log_event!(shared_store_evicts { policy });
        }
        Ok(())
    }

    /// Sends requests, and returns their answers in the same order. If it fails, those that are missing may have been applied or not,
    /// or may be yet.
    pub(super) fn exchange(&mut self, requests: Vec<Sent<'_>>, answers: &mut Vec<Received>) -> Result<(), LinkError> {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        let mut packer = Packer::new(&self.hashes);
        for Sent { bucket, names, id, request } in requests {
            let user = match &request {
                Request::Read(user) => Some(user.clone()),
                Request::Write(write) => Some(write.user.clone()),
                Request::Beat { .. }
                | Request::Bury { .. }
                | Request::Open(_)
                | Request::Leave { .. }
                | Request::Forget { .. }
                | Request::RaiseFloor { .. }
                | Request::Scan { .. }
                | Request::ReadOverrides
                | Request::WriteOverrides(_)
                | Request::RestoreOverrides { .. } => None,
            };
            expected.push((bucket, id, user, packer.pack(names, request, &mut bytes)));
        }
        redis::cmd("INFO").arg("replication").write_packed_command(&mut bytes);
        self.connection.send_packed_command(&bytes)?;
        let mut fatal = None;
        let first = answers.len();
        for (bucket, id, user, expected) in expected {
            let reply = self.connection.recv_response()?;
            let body = if let Value::ServerError(error) = reply {
                if is_fatal(&error) {
                    fatal.get_or_insert(error);
                    continue;
                }
                AnswerBody::Failed(refused(&error))
            } else {
                let mut unreadable = Vec::new();
                let body = reply::parse(expected, &reply, &mut unreadable).unwrap_or_else(|error| {
                    match user {
                        Some(user) => unreadable.push((user, error)),
                        None => log_limited!(LOG, shared_store_refused { error: display(error) }),
                    }
                    AnswerBody::Failed(StoreError::Failed)
                });
                for (user, error) in unreadable {
                    log_limited!(LOG, shared_record_unreadable { user: &user, error: display(error) });
                }
                body
            };
            answers.push(Received { bucket, id, answer: Answer { history: self.history, body } });
        }
        let replication = self.connection.recv_response()?;
        if let Value::ServerError(error) = &replication {
            fatal.get_or_insert(error.clone());
        }
        let history = reply::parse_history(&replication);
        if history != Some(self.history) {
            // What was answered meanwhile has one of two histories, and counts as neither.
            let unknown = HistoryId([0; 20]);
            answers[first..].iter_mut().for_each(|received| received.answer.history = unknown);
        }
        if let Some(error) = fatal {
            return Err(LinkError::Refused(error.to_string()));
        }
        self.history = history.ok_or(LinkError::Replica)?;
        Ok(())
    }
}

/// A connection to the server, whose calls take at most `timeout` each.
pub(super) fn connect(config: &RedisConfig, timeout: Duration) -> Result<Connection, LinkError> {
    let connection = Client::open(config.connection_info()?)?.get_connection_with_timeout(timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    connection.set_write_timeout(Some(timeout))?;
    Ok(connection)
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn check_version(info: &str) -> Result<(), LinkError> {
    let version = field(info, "redis_version").ok_or(LinkError::Foreign("INFO names no version"))?;
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(7..) => Ok(()),
        Some(_) | None => Err(LinkError::TooOld(version.into())),
    }
}

/// Whether the server says so to everything, or has to be told the scripts again: another connection has to be made.
fn is_fatal(error: &ServerError) -> bool {
    match error.kind() {
        Some(
            ServerErrorKind::NoScript
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown,
        ) => true,
        // Another connection finds out which rights are missing, and says so.
        _ => matches!(error.code(), "NOAUTH" | "NOPERM"),
    }
}

/// What clients are told whose requests the server has refused.
fn refused(error: &ServerError) -> StoreError {
    log_limited!(LOG, shared_store_refused { error: display(error) });
    if error.code() == "OOM" { StoreError::Full } else { StoreError::Failed }
}
