//! One connection to the shared store.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::{Client, Connection, ConnectionInfo, ErrorKind, RedisError, ServerError, ServerErrorKind, Value};
use session_core::cluster::{Answer, AnswerBody, HistoryId, Request, RequestId};
use session_core::ledger::StoreError;
use thiserror::Error;

use super::command::{BucketNames, Expected, Packer};
use super::config::{RedisConfig, RedisConfigError};
use super::format;
use super::reply;
use super::rights::{self, MissingRights};
use super::script::Script;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};

static LOG: LogRateLimiter = LogRateLimiter::new();

/// A connection to the shared store, which knows the history of the server behind it.
pub(super) struct Link {
    connection: Connection,
    /// How long the answers to what is sent at a time may take.
    timeout: Duration,
    /// Whether the server is one of a cluster.
    is_in_cluster: bool,
    /// How the server calls each script.
    hashes: Vec<String>,
    /// The server's history when it last answered. No history comes again, so if two answers name the same one, the server has had
    /// it all the time in between.
    history: HistoryId,
    /// What was sent and not answered.
    pipelines: VecDeque<Pipeline>,
}

/// How many pipelines may wait for their answers.
const MAX_PIPELINES: usize = 16;

/// Requests, and the question for the server's history behind them.
struct Pipeline {
    expected: Vec<(u16, RequestId, Expected)>,
    /// Whether it is asked how many replicas have what was written.
    waits: bool,
    /// Whether something is granted only if enough have it.
    has_grants: bool,
}

/// A request of a bucket.
pub(super) struct Sent<'a> {
    pub bucket: u16,
    pub names: &'a BucketNames,
    pub id: RequestId,
    pub request: Request,
}

/// How many replicas must have what.
pub(super) struct Replicas {
    /// How many must have each beat.
    pub number: u8,
    /// Whether they must have each grant, too.
    pub confirm_grants: bool,
    /// How long they may take.
    pub timeout: Duration,
}

/// What became of requests that were all answered.
pub(super) struct Exchanged {
    /// Whether another server may have their keys now: some were refused, or no replica has what was written.
    pub has_moved: bool,
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
    /// It takes only the keys of its slots.
    #[error("the server belongs to a cluster: name it in redis_cluster")]
    InCluster,
    /// It has no slots.
    #[error("the server belongs to no cluster: name it in redis_url")]
    NoCluster,
    /// It only says where another one is.
    #[error("the server is a Sentinel: name it in redis_sentinels")]
    Sentinel,
    /// It watches others.
    #[error("it knows no server of the name {0:?} (redis_master)")]
    UnknownMaster(String),
    /// It does not say where another one is.
    #[error("the server is no Sentinel: name it in redis_url")]
    NoSentinel,
    /// It says something that this software does not understand.
    #[error("the server does not answer as Redis does: {0}")]
    Foreign(&'static str),
    /// The keys have another format.
    #[error("{0}")]
    OtherFormat(String),
    /// The Sentinels, or the servers of the cluster, do not say where it is.
    #[error("nobody says where the server is: {0}")]
    NotFound(String),
    /// It takes too long.
    #[error("the server does not answer in time (store_timeout)")]
    Late,
    /// Too few replicas have what was granted.
    #[error("too few replicas confirm what they are sent (redis_replicas)")]
    NotReplicated,
    /// It does not do what a primary does.
    #[error("the server refuses: {0}")]
    Refused(String),
}

impl From<RedisError> for LinkError {
    /// The error is part of the message, so it is not its source as well: it would be printed twice.
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            Self::Late
        } else if error.kind() == ErrorKind::Parse {
            Self::Foreign("it sends something else")
        } else {
            Self::Redis(error)
        }
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
    /// Checks that the server will do for keys with this prefix, and loads the scripts.
    pub(super) fn open(connection: Connection, prefix: &str, timeout: Duration) -> Result<Self, LinkError> {
        Self::open_unexplained(connection, prefix, timeout).map_err(|error| {
            let missing = if let LinkError::Redis(redis) = &error { rights::missing(redis, prefix) } else { None };
            missing.map_or(error, LinkError::from)
        })
    }

    fn open_unexplained(mut connection: Connection, prefix: &str, timeout: Duration) -> Result<Self, LinkError> {
        let server: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
        check_version(&server)?;
        if mode(&server) == Some("sentinel") {
            return Err(LinkError::Sentinel);
        }
        let load = |script: Script, connection: &mut Connection| {
            redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query::<String>(connection)
        };
        let hashes = Script::ALL.into_iter().map(|script| load(script, &mut connection)).collect::<Result<_, _>>()?;
        let replication: Value = redis::cmd("INFO").arg("replication").query(&mut connection)?;
        let history = reply::parse_history(&replication).ok_or(LinkError::Replica)?;
        if let Some(missing) = rights::check(&mut connection, prefix)? {
            return Err(missing.into());
        }
        Ok(Self {
            connection,
            timeout,
            is_in_cluster: mode(&server) == Some("cluster"),
            hashes,
            history,
            pipelines: VecDeque::new(),
        })
    }

    /// Whether the server is one of a cluster.
    pub(super) const fn is_in_cluster(&self) -> bool {
        self.is_in_cluster
    }

    /// Compares the format of the keys with that of this server. Only at the server that has the first part.
    pub(super) fn check_format(&mut self, prefix: &str, parts: u16) -> Result<(), LinkError> {
        match format::conflict(&mut self.connection, prefix, parts)? {
            None => Ok(()),
            Some(conflict) => Err(LinkError::OtherFormat(conflict)),
        }
    }

    /// Warns if the server may throw keys away, or take writes that are lost.
    pub(super) fn check_settings(&mut self, config: &RedisConfig, store: &str) -> Result<(), LinkError> {
        let replication: String = redis::cmd("INFO").arg("replication").query(&mut self.connection)?;
        let has_replicas = field(&replication, "connected_slaves").is_some_and(|replicas| replicas != "0");
        if has_replicas && config.replicas == 0 && !self.refuses_alone(config) {
            log_event!(shared_store_splits { store });
        }
        let memory: String = redis::cmd("INFO").arg("memory").query(&mut self.connection)?;
        let policy = field(&memory, "maxmemory_policy").unwrap_or("noeviction");
        if policy != "noeviction" {
            log_event!(shared_store_evicts { policy });
        }
        Ok(())
    }

    /// Whether the server soon refuses writes once it has no replica: before another one may free the slots of a node that only
    /// this one hears.
    fn refuses_alone(&mut self, config: &RedisConfig) -> bool {
        let mut number = |name: &str| {
            let setting: (String, u64) = redis::cmd("CONFIG").arg("GET").arg(name).query(&mut self.connection).ok()?;
            Some(setting.1)
        };
        let lag = number("min-replicas-max-lag").map(Duration::from_secs);
        let is_soon = |lag| lag + config.timing.fence() <= config.timing.lease();
        number("min-replicas-to-write").is_some_and(|replicas| replicas > 0) && lag.is_some_and(is_soon)
    }

    /// Whether an answer is awaited.
    pub(super) fn is_busy(&self) -> bool {
        !self.pipelines.is_empty()
    }

    /// Whether it has enough to answer: no more should be sent now.
    pub(super) fn is_full(&self) -> bool {
        self.pipelines.len() >= MAX_PIPELINES
    }

    /// Sends requests. The server is asked behind them for its history.
    pub(super) fn send(&mut self, requests: Vec<Sent<'_>>, replicas: &Replicas) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        let mut expected = Vec::with_capacity(requests.len());
        let mut packer = Packer::new(&self.hashes);
        let (mut has_beats, mut has_grants) = (false, false);
        for Sent { bucket, names, id, request } in requests {
            has_beats |= matches!(request, Request::Beat { .. });
            has_grants |= matches!(&request, Request::Write(write) if write.overrides.is_some());
            expected.push((bucket, id, packer.pack(names, request, &mut bytes)));
        }
        has_grants &= replicas.confirm_grants;
        let waits = replicas.number > 0 && (has_beats || has_grants);
        if waits {
            let millis = u64::try_from(replicas.timeout.as_millis()).unwrap_or(u64::MAX);
            redis::cmd("WAIT").arg(replicas.number).arg(millis).write_packed_command(&mut bytes);
        }
        redis::cmd("INFO").arg("replication").write_packed_command(&mut bytes);
        self.pipelines.push_back(Pipeline { expected, waits, has_grants });
        self.connection.send_packed_command(&bytes)?;
        Ok(())
    }

    /// Receives the answers to what was sent first of all that is not answered, in the same order. If it fails, those that are missing
    /// may have been applied or not, or may be yet.
    pub(super) fn receive(&mut self, replicas: &Replicas, answers: &mut Vec<Received>) -> Result<Exchanged, LinkError> {
        let Some(Pipeline { expected, waits, has_grants }) = self.pipelines.pop_front() else {
            return Ok(Exchanged { has_moved: false });
        };
        let (mut fatal, mut has_moved) = (None, false);
        let (first, started) = (answers.len(), Instant::now());
        // Until the server has said again which history it has, an answer counts for none.
        let unknown = HistoryId([0; 20]);
        for (bucket, id, expected) in expected {
            // A read has a time limit of its own. So a server that sends something all the time is late, too.
            if started.elapsed() > self.timeout {
                return Err(LinkError::Late);
            }
            let reply = self.connection.recv_response()?;
            let body = if let Value::ServerError(error) = reply {
                if is_fatal(&error) {
                    fatal.get_or_insert(error);
                    continue;
                }
                let is_elsewhere = is_elsewhere(&error);
                has_moved |= is_elsewhere;
                AnswerBody::Failed(if is_elsewhere { StoreError::Failed } else { refused(&error) })
            } else {
                read(expected, &reply)
            };
            answers.push(Received { bucket, id, answer: Answer { history: unknown, body } });
        }
        if waits && !has_replicas(&self.connection.recv_response()?, replicas.number) {
            log_limited!(LOG, shared_store_not_replicated { replicas: replicas.number });
            // The replicas may follow another one.
            has_moved = true;
            if has_grants {
                // Whether what was granted lasts is not known.
                answers.truncate(first);
                return Err(LinkError::NotReplicated);
            }
            for received in &mut answers[first..] {
                if matches!(received.answer.body, AnswerBody::Beat(_)) {
                    received.answer.body = AnswerBody::Failed(StoreError::Failed);
                }
            }
        }
        let replication = self.connection.recv_response()?;
        if let Value::ServerError(error) = &replication {
            fatal.get_or_insert(error.clone());
        }
        let history = reply::parse_history(&replication);
        if history == Some(self.history) {
            answers[first..].iter_mut().for_each(|received| received.answer.history = self.history);
        }
        if let Some(error) = fatal {
            return Err(LinkError::Refused(error.to_string()));
        }
        self.history = history.ok_or(LinkError::Replica)?;
        Ok(Exchanged { has_moved })
    }
}

/// The answer to a request.
fn read(expected: Expected, reply: &Value) -> AnswerBody {
    let mut unreadable = Vec::new();
    let body = reply::parse(expected, reply, &mut unreadable).unwrap_or_else(|error| {
        log_limited!(LOG, shared_store_refused { error: display(error) });
        AnswerBody::Failed(StoreError::Failed)
    });
    for (user, error) in unreadable {
        log_limited!(LOG, shared_record_unreadable { user: &user, error: display(error) });
    }
    body
}

/// A connection to this server. Each call takes at most `timeout`.
pub(super) fn connect(info: ConnectionInfo, timeout: Duration) -> Result<Connection, LinkError> {
    // Otherwise each connection sends CLIENT SETINFO. Before Redis 7.2 nobody can be given the right to that, and later ones log
    // each time that it is missing.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let info = info.set_redis_settings(settings);
    let connection = Client::open(info)?.get_connection_with_timeout(timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    connection.set_write_timeout(Some(timeout))?;
    Ok(connection)
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// What kind of server it is: `standalone`, `cluster` or `sentinel`. Valkey has another name for the field.
fn mode(info: &str) -> Option<&str> {
    field(info, "redis_mode").or_else(|| field(info, "server_mode"))
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
    let kinds = [
        ServerErrorKind::NoScript,
        ServerErrorKind::ReadOnly,
        ServerErrorKind::BusyLoading,
        ServerErrorKind::MasterDown,
        // Another connection finds out which rights are missing, and says so.
        ServerErrorKind::NoPerm,
    ];
    error.kind().is_some_and(|kind| kinds.contains(&kind)) || error.code() == "NOAUTH"
}

/// Whether the server says that the keys belong, or will soon belong, to another one.
fn is_elsewhere(error: &ServerError) -> bool {
    let kinds = [ServerErrorKind::Moved, ServerErrorKind::Ask, ServerErrorKind::TryAgain, ServerErrorKind::ClusterDown];
    error.kind().is_some_and(|kind| kinds.contains(&kind))
}

fn has_replicas(reply: &Value, number: u8) -> bool {
    matches!(reply, Value::Int(confirmed) if *confirmed >= i64::from(number))
}

/// What clients are told whose requests the server has refused.
fn refused(error: &ServerError) -> StoreError {
    log_limited!(LOG, shared_store_refused { error: display(error) });
    if error.code() == "OOM" { StoreError::Full } else { StoreError::Failed }
}
