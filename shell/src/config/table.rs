//! Every key of the configuration, once. What is written here becomes the field, the flag, the environment variable, the
//! key of the file, and what the help and `server config --default` say of it.
//!
//! A new key is a new entry. Its rule is put together from those in [`rule`](super::value); if it must hold together with
//! others, [`agree`] says so.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::ValueEnum;
use session_core::ledger::{CountBy, SlotLimit};

use super::key::settings;
use super::value::{
    Bound, ValueReader, at_least_one, bound, choice, duration, duration_within, list, number, one, optional, path,
    switch, text,
};
use crate::auth::Algorithm;
use crate::net::hosts::Host;
use crate::net::listen_address::ListenAddress;
use crate::net::origins::Origin;
use crate::net::trusted_proxies::ProxyNetwork;
use crate::runtime::log::{Log, LogFormat};
use crate::runtime::threads::one_per_core;
use crate::store::Retention;

settings! {
    /// The server's configuration. Every value was checked when it was read.
    pub struct Config;

    "Listening" {
        /// Where to listen: HOST:PORT, where HOST is an address or a name; several with commas between them, or as an
        /// array in the file, or as a flag that is given again. `localhost` is 127.0.0.1 and, where the machine has it, ::1. Port 0 lets the system choose
        listen: Vec<ListenAddress> {
            rule: at_least_one(list(one(ListenAddress::from_str))),
            value: "HOST:PORT", default: "localhost:3000", applies: AfterRestart
        }

        /// A certificate in PEM, its issuers after it. With it every address speaks TLS, wss://. Read again on SIGHUP
        tls_cert: Option<PathBuf> {
            rule: optional(path()),
            value: "FILE", default: "", applies: AtOnce
        }

        /// The private key of that certificate in PEM
        tls_key: Option<PathBuf> {
            rule: optional(path()),
            value: "FILE", default: "", applies: AtOnce
        }

        /// From which pages browsers may connect, such as `https://app.example.com` or
        /// `https://*.example.com`; `*` for any.
        /// A client that sends no Origin is no browser, and may always
        allowed_origins: Vec<Origin> {
            rule: list(one(Origin::from_str)),
            value: "ORIGIN", default: "", applies: AtOnce
        }

        /// By which names clients may have found this server, such as sessions.example.com; none given is any
        allowed_hosts: Vec<Host> {
            rule: list(one(Host::from_str)),
            value: "HOST", default: "", applies: AtOnce
        }

        /// Proxies that may say where a client really is, by X-Forwarded-For or the PROXY protocol: addresses, or networks
        /// such as 10.0.0.0/8. From others these are ignored
        trusted_proxies: Vec<ProxyNetwork> {
            rule: list(one(ProxyNetwork::from_str)),
            value: "NETWORK", default: "", applies: AtOnce
        }

        /// Whether connections of trusted proxies begin with a header of the PROXY protocol, version 2. Then they must; from
        /// others one is read and ignored
        proxy_protocol: bool {
            rule: switch(),
            value: "BOOL", default: "false", applies: AtOnce
        }

        /// How many threads serve connections, 1 to 256 [default: one per core]
        threads: u16 {
            rule: number(1..=256),
            value: "THREADS", default: one_per_core().to_string(), applies: AfterRestart
        }
    }

    "Identity" {
        /// How users say who they are: `open`, whoever asks is who they say they are; or `jwt`, by a signed JSON Web Token
        auth: Authentication { rule: choice(), value: "KIND", default: "open", applies: AfterRestart }

        /// Lets a server with open authentication listen beyond this machine
        allow_open_auth: bool { rule: switch(), value: "BOOL", default: "false", applies: AfterRestart }

        /// How tokens are signed: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA. A
        /// token that is signed otherwise is refused
        jwt_algorithm: Algorithm { rule: one(Algorithm::from_str), value: "NAME", default: "HS256", applies: AtOnce }

        /// The file with the secret that HS256, HS384 and HS512 need, unless the environment variable SESSIONS_JWT_SECRET
        /// has it. This and the next two are read again when they change
        jwt_secret_file: Option<PathBuf> { rule: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// The public key in PEM that the others need
        jwt_public_key_file: Option<PathBuf> { rule: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// Or a JSON Web Key Set with several public keys, of which a token names one (kid)
        jwt_key_set_file: Option<PathBuf> { rule: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// The claim that names the user
        jwt_user_claim: String { rule: text(), value: "CLAIM", default: "sub", applies: AtOnce }

        /// The claim that says how many sessions the user may hold. It goes before `limit`
        jwt_limit_claim: String { rule: text(), value: "CLAIM", default: "max_sessions", applies: AtOnce }

        /// The claim that names the device, if any does: every token must then. It goes before what the client says, which
        /// anybody can make up
        jwt_device_claim: Option<String> {
            rule: optional(text()),
            value: "CLAIM", default: "", applies: AtOnce
        }

        /// Whom a token must be meant for (aud), one of these; none given is anybody
        jwt_audience: Vec<String> { rule: list(text()), value: "NAME", default: "", applies: AtOnce }

        /// Whom a token must be from (iss), one of these; none given is anybody
        jwt_issuer: Vec<String> { rule: list(text()), value: "NAME", default: "", applies: AtOnce }

        /// How far the clocks of this machine and of who signs tokens may be apart, 0s to 5m. Tokens last so much longer
        jwt_leeway: Duration {
            rule: duration(Duration::ZERO..=300 * SECOND),
            value: "TIME", default: "0s", applies: AtOnce
        }
    }

    "Limits" {
        /// How many sessions one user may hold at once, 0 to 1024, where 0 admits nobody but whom a token or `server limit`
        /// allows more; `unlimited` is 1024
        limit: SlotLimit { rule: one(limit), value: "SESSIONS", default: "3", applies: AtOnce }

        /// How many connections there may be in all, 1 to 10000000 or `unlimited`; fewer where the limit of open files is
        /// lower. Further ones are answered 503, and over TLS just closed
        max_connections: Bound {
            rule: bound(1..=10_000_000),
            value: "N", default: "100000", applies: AtOnce
        }

        /// How many of them may be unauthenticated, 1 to 10000000 or `unlimited`. Then 503
        max_unauthenticated: Bound {
            rule: bound(1..=10_000_000),
            value: "N", default: "10000", applies: AtOnce
        }

        /// How many connections one address may have, or one /64 of IPv6, 1 to 10000000 or `unlimited`. Then 503
        max_connections_per_address: Bound {
            rule: bound(1..=10_000_000),
            value: "N", default: "1000", applies: AtOnce
        }

        /// How many connections one address, or one /64, may open in a second, 1 to 1000000 or `unlimited`. Then 503
        max_connection_rate: Bound {
            rule: bound(1..=1_000_000),
            value: "N", default: "200", applies: AtOnce
        }

        /// How many bytes the head of a request may have, 8192 to 1048576 or `unlimited`. Then 431
        max_header_bytes: Bound {
            rule: bound(8192..=1_048_576),
            value: "BYTES", default: "8192", applies: AtOnce
        }

        /// The longest message a client may send, in bytes, 1024 to 1048576 or `unlimited`. Then it is closed with 1009
        max_message_bytes: Bound {
            rule: bound(1024..=1_048_576),
            value: "BYTES", default: "4096", applies: AtOnce
        }

        /// How many messages and pings a client may send in a second, 1 to 1000000 or `unlimited`. Then it is closed with
        /// 1008
        max_message_rate: Bound {
            rule: bound(1..=1_000_000),
            value: "N", default: "100", applies: AtOnce
        }

        /// How many messages that make no sense a client may send, 1 to 65535 or `unlimited`. The next closes with 1008
        max_bad_messages: Bound {
            rule: bound(1..=65_535),
            value: "N", default: "16", applies: AtOnce
        }

        /// How many bytes the kernel may keep for a client that does not read, 4096 to 16777216 or `unlimited`, which is what
        /// the kernel thinks fit; Linux takes twice that, and `net.core.wmem_max` bounds it. Then nothing more is read from
        /// the client, so that it soon counts as silent
        max_unsent_bytes: Bound {
            rule: bound(4096..=16_777_216),
            value: "BYTES", default: "32768", applies: AfterRestart
        }
    }

    "At the limit" {
        /// What happens when all of a user's slots are taken and another session comes: `deny` refuses it, `evict-oldest` ends
        /// the session that has the oldest slot. Can be set for single users (`server limit`)
        when_full: ConfigWhenFull { rule: choice(), value: "WHAT", default: "deny", applies: AtOnce }

        /// Whether a client that asks for it may choose whom to end then
        client_choice: bool { rule: switch(), value: "BOOL", default: "false", applies: AtOnce }

        /// How long the slot of a session lingers whose client is lost without BYE, for that client to take it up again, 0s to
        /// 1day. Only of clients that authenticate with an object; it holds for slots that are granted from then on
        linger: Duration { rule: duration(Duration::ZERO..=24 * HOUR), value: "TIME", default: "0s", applies: AtOnce }

        /// Whether slots that only linger are given up for a newcomer, oldest first, before anybody is refused or ended
        lingering_first: bool { rule: switch(), value: "BOOL", default: "true", applies: AtOnce }

        /// What holds a slot: `sessions`, each of them; or `devices`, all the sessions together that name the same one
        count: ConfigCountBy { rule: choice(), value: "WHAT", default: "sessions", applies: AtOnce }

        /// How many sessions one device may have, 1 to 1024, where devices are counted
        max_sessions_per_device: NonZeroU16 {
            rule: one(sessions_per_device),
            value: "N", default: "16", applies: AtOnce
        }
    }

    "Timeouts" {
        /// How long a connection may take from its beginning until it is authenticated, 100ms to 1h
        auth_timeout: Duration { rule: timeout(), value: "TIME", default: "10s", applies: AtOnce }

        /// How long a connection may take from its beginning until its request has come whole, 100ms to 1h, or `unlimited`
        /// for as long as it may take to authenticate. Then it is answered 408
        header_timeout: Option<Duration> { rule: one(header_timeout), value: "TIME", default: "5s", applies: AtOnce }

        /// How long a client may be silent before it is sent a ping, 100ms to 1h
        ping_interval: Duration { rule: timeout(), value: "TIME", default: "30s", applies: AtOnce }

        /// How long after that ping a client may still be silent before it counts as dead, 100ms to 1h
        pong_timeout: Duration { rule: timeout(), value: "TIME", default: "10s", applies: AtOnce }

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
        forget_after: Retention { rule: one(forget), value: "TIME", default: "30d", applies: AfterRestart }
    }

    "Log" {
        /// What to log to standard error: error, warn, info, debug, trace or off, or directives such as `shell=debug`
        log: String { rule: one(log_filter), value: "LEVEL", default: "info", applies: AtOnce }

        /// How to log: text for people, json for programs
        log_format: LogFormat { rule: choice(), value: "FORMAT", default: "text", applies: AfterRestart }
    }
}

/// How users say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Authentication {
    /// They just say so.
    Open,
    /// By a signed token.
    Jwt,
}

/// What happens when all of a user's slots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigWhenFull {
    /// Another session is refused.
    Deny,
    /// It takes the place of the oldest.
    EvictOldest,
}

impl From<ConfigWhenFull> for session_core::ledger::WhenFull {
    fn from(when_full: ConfigWhenFull) -> Self {
        match when_full {
            ConfigWhenFull::Deny => Self::Deny,
            ConfigWhenFull::EvictOldest => Self::EvictOldest,
        }
    }
}

/// What holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigCountBy {
    /// Each session.
    Sessions,
    /// All the sessions of a device.
    Devices,
}

impl From<ConfigCountBy> for CountBy {
    fn from(count: ConfigCountBy) -> Self {
        match count {
            ConfigCountBy::Sessions => Self::Sessions,
            ConfigCountBy::Devices => Self::Devices,
        }
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
pub(crate) struct Conflict {
    pub(crate) keys: &'static [&'static str],
    pub(crate) reason: String,
}

/// Every set of keys whose values are good, but not together.
pub(crate) fn check_conflicts(config: &Config) -> Vec<Conflict> {
    let mut disagreements = Vec::new();
    let mut disagree = |keys, reason: &str| disagreements.push(Conflict { keys, reason: reason.into() });
    match (&config.tls_cert, &config.tls_key) {
        (Some(_), None) => disagree(&["tls_cert", "tls_key"], "a certificate needs its key"),
        (None, Some(_)) => disagree(&["tls_key", "tls_cert"], "a key needs its certificate"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    // Of port 0 there are many.
    let is_twice = |at: usize, listen: &ListenAddress| !listen.is_any_port() && config.listen[..at].contains(listen);
    if let Some((_, listen)) = config.listen.iter().enumerate().find(|&(at, listen)| is_twice(at, listen)) {
        disagree(&["listen"], &format!("{listen} is given twice"));
    }
    if config.proxy_protocol && config.trusted_proxies.is_empty() {
        disagree(
            &["proxy_protocol", "trusted_proxies"],
            "no proxy is trusted, so no header of that protocol would count",
        );
    }
    let keys = [&config.jwt_secret_file, &config.jwt_public_key_file, &config.jwt_key_set_file];
    if keys.into_iter().flatten().count() > 1 {
        disagree(
            &["jwt_secret_file", "jwt_public_key_file", "jwt_key_set_file"],
            "only one of them can say which keys tokens are signed with",
        );
    }
    if config.auth == Authentication::Jwt
        && !config.jwt_algorithm.is_symmetric()
        && keys[1..].iter().all(|key| key.is_none())
    {
        disagree(
            &["jwt_algorithm", "jwt_public_key_file", "jwt_key_set_file"],
            "this algorithm needs a public key: give it in jwt_public_key_file, or several in jwt_key_set_file",
        );
    }
    if config.is_open_to_the_network() && !config.allow_open_auth {
        disagree(
            &["listen", "auth", "allow_open_auth"],
            "with open authentication whoever says `ada` is taken for ada, and this server is to listen beyond this machine: have \
             users show tokens (auth = \"jwt\"), let it listen on localhost, or set allow_open_auth if something before it \
             knows who they are",
        );
    }
    disagreements
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// As humantime counts it.
const YEAR: Duration = Duration::from_secs(31_557_600);

pub(crate) fn limit(text: &str) -> Result<SlotLimit, String> {
    if text == "unlimited" {
        return Ok(SlotLimit::MAX);
    }
    let slots = text.parse::<u32>().map_err(|_| "expected a whole number from 0 to 1024, or `unlimited`".to_owned())?;
    SlotLimit::new(slots).map_err(|error| error.to_string())
}

fn sessions_per_device(text: &str) -> Result<NonZeroU16, String> {
    let number = text.parse().ok().filter(|number: &NonZeroU16| u32::from(number.get()) <= SlotLimit::MAX.slots());
    number.ok_or_else(|| "expected a whole number from 1 to 1024".into())
}

fn header_timeout(text: &str) -> Result<Option<Duration>, String> {
    if text == "unlimited" {
        return Ok(None);
    }
    duration_within(text, 100 * MILLISECOND, HOUR).map(Some).map_err(|error| format!("{error}; or write `unlimited`"))
}

fn timeout() -> ValueReader<Duration> {
    duration(100 * MILLISECOND..=HOUR)
}

fn forget(text: &str) -> Result<Retention, String> {
    if text == "never" {
        return Ok(Retention::Never);
    }
    duration_within(text, HOUR, 100 * YEAR).map(Retention::After).map_err(|error| format!("{error}; or write `never`"))
}

fn log_filter(text: &str) -> Result<String, String> {
    Log::parse_filter(text).map(|_| text.to_owned())
}
