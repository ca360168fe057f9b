//! Every key of the configuration, once. What is written here becomes the field, the flag, the environment variable, the
//! key of the file, and what the help and `server config --default` say of it.
//!
//! A new key is a new entry. Its rule is put together from those in [`rule`](super::rule); if it must hold together with
//! others, [`agree`] says so.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::ValueEnum;
use session_core::Limit;

use super::Listen;
use super::key::settings;
use super::rule::{Rule, at_least_one, choice, duration, duration_within, list, number, one, path};
use crate::log::{Log, LogFormat};
use crate::store::Forget;
use crate::threads::one_per_core;

settings! {
    /// The server's configuration. Every value was checked when it was read.
    pub struct Config;

    "Listening" {
        /// Where to listen: HOST:PORT, where HOST is an address or a name. Can be given several times, or as a list with
        /// commas. `localhost` is 127.0.0.1 and, where the machine has it, ::1. Port 0 lets the system choose
        listen: Vec<Listen> {
            rule: at_least_one(list(one(Listen::from_str))),
            value: "HOST:PORT", default: "localhost:3000", applies: AfterRestart
        }

        /// How many threads serve connections, 1 to 256 [default: one per core]
        threads: u16 {
            rule: number(1..=256),
            value: "THREADS", default: one_per_core().to_string(), applies: AfterRestart
        }
    }

    "Limits" {
        /// How many sessions one user may hold at once, 1 to 1024
        limit: Limit { rule: one(limit), value: "SESSIONS", default: "3", applies: AtOnce }

        /// The longest message a client may send, in bytes, 1024 to 1048576
        max_message_bytes: u32 {
            rule: number(1024..=1_048_576),
            value: "BYTES", default: "4096", applies: AtOnce
        }
    }

    "Timeouts" {
        /// How long a connection may take from its beginning until it is authenticated, 100ms to 1h
        auth_timeout: Duration { rule: patience(), value: "TIME", default: "10s", applies: AtOnce }

        /// How long a client may be silent before it is sent a ping, 100ms to 1h
        ping_interval: Duration { rule: patience(), value: "TIME", default: "30s", applies: AtOnce }

        /// How long after that ping a client may still be silent before it counts as dead, 100ms to 1h
        pong_timeout: Duration { rule: patience(), value: "TIME", default: "10s", applies: AtOnce }

        /// How long the store may take to answer, 10ms to 1m. Whoever waits longer is refused
        store_timeout: Duration {
            rule: duration(10 * MILLISECOND..=60 * SECOND),
            value: "TIME", default: "5s", applies: AfterRestart
        }
    }

    "Store" {
        /// Where users and slots are kept: in LMDB in the data directory, or in memory, where they end with the process
        store: StoreKind { rule: choice(), value: "KIND", default: "lmdb", applies: AfterRestart }

        /// The directory that holds the data. Created if it does not exist; one server at a time
        data: PathBuf { rule: path(), value: "DIR", default: "./data", applies: AfterRestart }

        /// How long a user who holds no slot stays known after it was last granted one, 1h to 100years, or `never` to
        /// forget nobody. It is forgotten within about a day after that
        forget_after: Forget { rule: one(forget), value: "TIME", default: "30d", applies: AfterRestart }
    }

    "Log" {
        /// What to log to standard error: error, warn, info, debug, trace or off, or directives such as `shell=debug`
        log: String { rule: one(log_filter), value: "LEVEL", default: "info", applies: AtOnce }

        /// How to log: text for people, json for programs
        log_format: LogFormat { rule: choice(), value: "FORMAT", default: "text", applies: AfterRestart }
    }
}

/// Which store to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// LMDB in the data directory.
    Lmdb,
    /// A map in memory.
    Memory,
}

/// Keys that do not go together, and why.
#[derive(Debug)]
pub(super) struct Disagreement {
    pub(super) keys: &'static [&'static str],
    pub(super) reason: String,
}

/// Every set of keys whose values are good, but not together. None of today's keys depend on each other.
pub(super) fn agree(_config: &Config) -> Vec<Disagreement> {
    Vec::new()
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// As humantime counts it.
const YEAR: Duration = Duration::from_secs(31_557_600);

fn limit(text: &str) -> Result<Limit, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("with 0 nobody would ever be admitted, the least is 1".into()),
        Ok(slots) => Limit::new(slots).map_err(|error| error.to_string()),
        Err(_) => Err("expected a whole number, 1 to 1024".into()),
    }
}

fn patience() -> Rule<Duration> {
    duration(100 * MILLISECOND..=HOUR)
}

fn forget(text: &str) -> Result<Forget, String> {
    if text == "never" {
        return Ok(Forget::Never);
    }
    duration_within(text, HOUR, 100 * YEAR).map(Forget::After).map_err(|error| format!("{error}; or write `never`"))
}

fn log_filter(text: &str) -> Result<String, String> {
    Log::parse_filter(text).map(|_| text.to_owned())
}
