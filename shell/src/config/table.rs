//! The table of all keys. From each entry come the field, the flag, the environment variable, the key of the file, and its
//! description in the help and in `server config --default`.
//!
//! To add a key, add an entry. Combine its reader from those in [`value`](super::value). If it can conflict with other keys,
//! add the check to `conflicts.rs`.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use session_core::ledger::{CountBy, SlotLimit, UserRecord, WhenFull};
use session_core::protocol::SUBPROTOCOL;

use super::key::settings;
use super::value::{
    Bound, ValueReader, at_least_one, auto_or, bound, choice, choice_of, duration, list, number, one, optional, path,
    redacted, switch, text,
};
use crate::auth::{Algorithm, ClaimName, ProviderUrl};
use crate::net::forwarded::ForwardedHeader;
use crate::net::hosts::Host;
use crate::net::listen_address::ListenAddress;
use crate::net::origins::Origin;
use crate::net::paths::RequestPath;
use crate::net::subprotocols::Subprotocol;
use crate::net::trusted_proxies::ProxyNetwork;
use crate::runtime::duration::duration_within;
use crate::runtime::events::LogUsers;
use crate::runtime::log::{Log, LogFormat};
use crate::runtime::threads::one_per_core;
use crate::runtime::user_id_form::UserIdForm;
use crate::store::{LiveWrites, RedisUrl, Retention};

settings! {
    /// The server's configuration. Loading has checked every value.
    pub struct Config;

    "Listening" {
        /// The addresses to listen on, HOST:PORT, where HOST is an address or a name. Several are separated by commas,
        /// or written as an array in the file, or given by repeating the flag. `localhost` is 127.0.0.1 and, if the
        /// machine has it, ::1. With port 0 the system chooses the port
        listen: Vec<ListenAddress> {
            reader: at_least_one(list(one(ListenAddress::from_str))),
            value: "HOST:PORT", default: "localhost:3000", applies: AfterRestart
        }

        /// A certificate in PEM, followed by the certificates of its issuers. With it every address speaks TLS
        /// (wss://). SIGHUP reads the file again
        tls_cert: Option<PathBuf> {
            reader: optional(path()),
            value: "FILE", default: "", applies: AtOnce
        }

        /// The private key of that certificate, in PEM
        tls_key: Option<PathBuf> {
            reader: optional(path()),
            value: "FILE", default: "", applies: AtOnce
        }

        /// The origins whose pages may connect from a browser, such as `https://app.example.com` or
        /// `https://*.example.com`; `*` for any. A client without an Origin header is no browser and may connect, and so may
        /// one with the server's own origin: an address that the server listens on, localhost, or one of `allowed_hosts`
        allowed_origins: Vec<Origin> {
            reader: list(one(Origin::from_str)),
            value: "ORIGIN", default: "", applies: AtOnce
        }

        /// The host names that requests may be addressed to, such as sessions.example.com. If empty, any name
        allowed_hosts: Vec<Host> {
            reader: list(one(Host::from_str)),
            value: "HOST", default: "", applies: AtOnce
        }

        /// The paths at which clients open a WebSocket, such as /sessions. `/` answers health checks in any case
        path: Vec<RequestPath> {
            reader: at_least_one(list(one(RequestPath::from_str))),
            value: "PATH", default: "/", applies: AtOnce
        }

        /// The WebSocket subprotocols that the server may select, if a client offers them. If it offers only others, the
        /// server selects none, and browsers then close the connection
        subprotocols: Vec<Subprotocol> {
            reader: list(one(Subprotocol::from_str)),
            value: "NAME", default: SUBPROTOCOL, applies: AtOnce
        }

        /// Proxies whose `forwarded_header` or PROXY protocol header gives the client's address: addresses, or networks
        /// such as 10.0.0.0/8. The server ignores these headers from others
        trusted_proxies: Vec<ProxyNetwork> {
            reader: list(one(ProxyNetwork::from_str)),
            value: "NETWORK", default: "", applies: AtOnce
        }

        /// The header in which trusted proxies name their clients. Only this one counts. Choose one that your proxy writes
        /// by itself: any other comes from the client
        forwarded_header: ForwardedHeader {
            reader: choice(),
            value: "NAME", default: "x-forwarded-for", applies: AtOnce
        }

        /// Require a header of the PROXY protocol, version 1 or 2, on connections from trusted proxies. It then counts, and
        /// not `forwarded_header`. On other connections the header is read and ignored
        proxy_protocol: bool {
            reader: switch(),
            value: "BOOL", default: "false", applies: AtOnce
        }

        /// Threads that serve connections, 1 to 256; at least two run, as one may wait for the disk [default: one per core]
        threads: u16 {
            reader: number(1..=256),
            value: "THREADS", default: one_per_core().to_string(), applies: AfterRestart
        }
    }

    "Identity" {
        /// How users authenticate: `open`, the server believes any user id; or `jwt`, by a signed JSON Web Token
        auth: Authentication { reader: choice(), value: "KIND", default: "open", applies: AfterRestart }

        /// Let a server with open authentication listen beyond this machine
        allow_open_auth: bool { reader: switch(), value: "BOOL", default: "false", applies: AfterRestart }

        /// Which spellings of a user's id are the same user: `exact`, none; `nfc`, an accented letter in either encoding of
        /// Unicode; `precis`, also capitals and letters of full width, without spaces (RFC 8265, UsernameCaseMapped). A change does not
        /// rename users who are stored already
        user_id_form: UserIdForm { reader: choice(), value: "FORM", default: "exact", applies: AfterRestart }

        /// The algorithms that sign tokens: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384
        /// or EdDSA. Several, such as RS256,ES256, while the issuer changes from one to another; those with a secret (HS…)
        /// cannot be mixed with the others. The server refuses a token that is signed with another
        jwt_algorithm: Vec<Algorithm> {
            reader: at_least_one(list(one(Algorithm::from_str))),
            value: "NAME", default: "HS256", applies: AtOnce
        }

        /// A file with the secret for HS256, HS384 and HS512. The environment variable SESSIONS_JWT_SECRET can hold it
        /// instead. The server reads this file and the next two again when they change
        jwt_secret_file: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// A file with the public key for the other algorithms, in PEM: one or more keys, or a certificate, whose key
        /// counts. Line breaks may be written out as \n
        jwt_public_key_file: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// Instead of one public key: a JSON Web Key Set with several. A token names its key by `kid`
        jwt_key_set_file: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// Instead of a file: where an identity provider publishes its JSON Web Key Set, with https. The server fetches it
        /// again before it expires (Cache-Control), and when a token names an unknown key. http is only for this machine
        jwt_key_set_url: Option<ProviderUrl> {
            reader: optional(one(ProviderUrl::from_str)),
            value: "URL", default: "", applies: AtOnce
        }

        /// Find that URL by OpenID Connect Discovery: at .well-known/openid-configuration below `jwt_issuer`, which must
        /// be one URL
        jwt_discovery: bool { reader: switch(), value: "BOOL", default: "false", applies: AtOnce }

        /// A file with the certificate authorities, in PEM, that the provider's certificate must come from. If empty, the
        /// system's
        jwt_key_set_ca: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AtOnce }

        /// The claim that names the user, by a string or an integer. A name that begins with / is a JSON Pointer to a
        /// nested claim, such as /realm_access/plan; any other name is taken literally, dots and slashes included
        jwt_user_claim: ClaimName { reader: one(ClaimName::from_str), value: "CLAIM", default: "sub", applies: AtOnce }

        /// The claim that gives the user's maximum number of sessions. It overrides `limit`. A whole number, also written
        /// as 2.0 or "2", or "unlimited"; more than 1024 counts as `unlimited`, and null as no claim
        jwt_limit_claim: ClaimName {
            reader: one(ClaimName::from_str),
            value: "CLAIM", default: "max_sessions", applies: AtOnce
        }

        /// The claim that names the device, by a string or an integer. If set, every token must have it. It overrides the
        /// device that the client sends, which the client could invent
        jwt_device_claim: Option<ClaimName> {
            reader: optional(one(ClaimName::from_str)),
            value: "CLAIM", default: "", applies: AtOnce
        }

        /// Accepted audiences (aud): a token must name one of them. If empty, any
        jwt_audience: Vec<String> { reader: list(text()), value: "NAME", default: "", applies: AtOnce }

        /// Accepted issuers (iss): a token must name one of them. If empty, any
        jwt_issuer: Vec<String> { reader: list(text()), value: "NAME", default: "", applies: AtOnce }

        /// Tolerated difference between the clocks of this machine and of the token's issuer, 0s to 5m. Tokens stay
        /// valid that much longer
        jwt_leeway: Duration {
            reader: duration(Duration::ZERO..=300 * SECOND),
            value: "TIME", default: "0s", applies: AtOnce
        }
    }

    "Limits" {
        /// Maximum sessions per user, 0 to 1024; `unlimited` is 1024. A token or `server limit` can override it. 0
        /// admits only users with such an override
        limit: SlotLimit { reader: one(parse_limit), value: "SESSIONS", default: "3", applies: AtOnce }

        /// Maximum connections in all, 1 to 10000000 or `unlimited`; fewer if the limit of open files is lower. The
        /// server answers further ones 503; over TLS it only closes them
        max_connections: Bound {
            reader: bound(1..=10_000_000),
            value: "N", default: "100000", applies: AtOnce
        }

        /// Maximum unauthenticated connections, 1 to 10000000 or `unlimited`. Further ones get 503
        max_unauthenticated: Bound {
            reader: bound(1..=10_000_000),
            value: "N", default: "10000", applies: AtOnce
        }

        /// Maximum connections per address, or per IPv6 /64, 1 to 10000000 or `unlimited`. Further ones get 503
        max_connections_per_address: Bound {
            reader: bound(1..=10_000_000),
            value: "N", default: "1000", applies: AtOnce
        }

        /// Maximum connections of one user, from all addresses, 2 to 10000000 or `unlimited`. Only with tokens. With it, a
        /// connection with a valid token counts for its user, and no longer for `max_connections_per_address`. It must be
        /// greater than `limit`. Further ones are closed with 1013
        max_connections_per_user: Bound {
            reader: bound(2..=10_000_000),
            value: "N", default: "unlimited", applies: AtOnce
        }

        /// Maximum new connections per second of one address, or of one IPv6 /64, 1 to 1000000 or `unlimited`. Further
        /// ones get 503
        max_connection_rate: Bound {
            reader: bound(1..=1_000_000),
            value: "N", default: "200", applies: AtOnce
        }

        /// Maximum bytes per second of one address, or of one IPv6 /64, both directions together, 65536 to 1073741824 or
        /// `unlimited`. What costs time without bytes counts, too: each read and each message as 1 KiB, each frame and
        /// each session that an answer is about as 64 bytes, repeated denials as up to 20 KiB each. Beyond it the server reads more slowly
        /// from the address
        max_work_per_address: Bound {
            reader: bound(65_536..=1_073_741_824),
            value: "BYTES", default: "2097152", applies: AtOnce
        }

        /// Maximum bytes per second of all addresses together, for each of the `threads`, 1048576 to 1073741824 or `unlimited`,
        /// counted as for max_work_per_address. Beyond it each address may cause only a share of max_work_per_address, the
        /// same for all
        max_work_per_thread: Bound {
            reader: bound(1_048_576..=1_073_741_824),
            value: "BYTES", default: "33554432", applies: AtOnce
        }

        /// Maximum bytes of a request's head, 8192 to 1048576 or `unlimited`. A longer one gets 431
        max_header_bytes: Bound {
            reader: bound(8192..=1_048_576),
            value: "BYTES", default: "8192", applies: AtOnce
        }

        /// Maximum bytes of a client's message, 1024 to 1048576 or `unlimited`. A longer one closes the connection with
        /// 1009, and the log says how long it was. `auto` is 4096. With `auth = jwt` it is 16384 until the client is
        /// authenticated, and longer for a client whose token took more than half of 4096
        max_message_bytes: Option<Bound> {
            reader: auto_or(bound(1024..=1_048_576)),
            value: "BYTES", default: "auto", applies: AtOnce
        }

        /// Maximum messages and pings per second of one client, 1 to 1000000 or `unlimited`. Beyond it the connection
        /// is closed with 1008
        max_message_rate: Bound {
            reader: bound(1..=1_000_000),
            value: "N", default: "100", applies: AtOnce
        }

        /// Maximum invalid messages of one client, 1 to 65535 or `unlimited`. The next one closes the connection with
        /// 1008
        max_bad_messages: Bound {
            reader: bound(1..=65_535),
            value: "N", default: "16", applies: AtOnce
        }

        /// Maximum bytes that the kernel buffers for a client that does not read, 4096 to 16777216; or `unlimited`, where
        /// the kernel decides. `net.core.wmem_max` limits it, and Linux takes twice that. Once the buffer is full, the
        /// server reads nothing more from the client, which then soon counts as silent
        max_unsent_bytes: Bound {
            reader: bound(4096..=16_777_216),
            value: "BYTES", default: "32768", applies: AfterRestart
        }
    }

    "At the limit" {
        /// What happens to a new session when all slots of its user are taken: `deny` denies it, `evict-oldest` ends
        /// the session with the oldest slot. `server limit` can override it per user
        when_full: WhenFull { reader: choice_of(when_full_values()), value: "WHAT", default: "deny", applies: AtOnce }

        /// Let clients choose which sessions to end when all slots are taken
        client_choice: bool { reader: switch(), value: "BOOL", default: "false", applies: AtOnce }

        /// Grace period in which a lost client's slot is kept for it to resume, 0s to 1day. Only for clients that
        /// authenticate with an object. A change applies to slots granted afterwards
        linger: Duration { reader: duration(Duration::ZERO..=24 * HOUR), value: "TIME", default: "0s", applies: AtOnce }

        /// How long a slot that was just lost is kept from new sessions, so that its client gets it back, 0s to 1day. It
        /// counts from the server's start for a slot that was lost before. A client that names the slot in `evict` takes
        /// it all the same; `evict-oldest` ends such slots last
        linger_grace: Duration {
            reader: duration(Duration::ZERO..=24 * HOUR),
            value: "TIME", default: "5s", applies: AtOnce
        }

        /// Free lingering slots for a new session, oldest first, before the server denies it or ends a live session. Not
        /// within `linger_grace` of their loss
        lingering_first: bool { reader: switch(), value: "BOOL", default: "true", applies: AtOnce }

        /// Maximum sessions of one user that wait in line for a slot, 0 to 64. A client waits if it asks to (`wait_ms`). At 0
        /// none may
        max_waiting: u16 { reader: one(waiting_sessions), value: "NUMBER", default: "16", applies: AtOnce }

        /// What takes a slot: `sessions`, each session; or `devices`, all sessions of one device together
        count: CountBy { reader: choice_of(count_values()), value: "WHAT", default: "sessions", applies: AtOnce }

        /// Maximum sessions of one device, 1 to 1024. Only with `count = devices`
        max_sessions_per_device: NonZeroU16 {
            reader: one(sessions_per_device),
            value: "N", default: "16", applies: AtOnce
        }
    }

    "Timeouts" {
        /// Maximum time from connecting to being authenticated, 100ms to 1h
        auth_timeout: Duration { reader: timeout(), value: "TIME", default: "10s", applies: AtOnce }

        /// Maximum time from connecting to the end of the request's head, 100ms to 1h; with `unlimited` only
        /// `auth_timeout` applies. Then the server answers 408
        header_timeout: Option<Duration> { reader: one(header_timeout), value: "TIME", default: "5s", applies: AtOnce }

        /// Silence of a client after which the server sends a ping, 100ms to 1h
        ping_interval: Duration { reader: timeout(), value: "TIME", default: "30s", applies: AtOnce }

        /// Further silence after that ping until the client counts as dead, 100ms to 1h
        pong_timeout: Duration { reader: timeout(), value: "TIME", default: "10s", applies: AtOnce }

        /// Maximum time the store may take to answer, and the check of a token that is signed with a public key, 10ms to
        /// 1m. After it the server refuses the client
        store_timeout: Duration {
            reader: duration(10 * MILLISECOND..=60 * SECOND),
            value: "TIME", default: "5s", applies: AfterRestart
        }
    }

    "Store" {
        /// Where users and slots are kept: `lmdb`, in the data directory; `memory`, until the process ends; or `redis`, in a
        /// Redis or Valkey, 7.0 or newer, that several servers share
        store: StoreKind { reader: choice(), value: "KIND", default: "lmdb", applies: AfterRestart }

        /// The data directory. Created if it does not exist. Only one server at a time can use it
        data: PathBuf { reader: path(), value: "DIR", default: "./data", applies: AfterRestart }

        /// How the slots in `live/` of the data directory are written: `map`, through a memory map, which is faster; `file`,
        /// with system calls; or `auto`, as `map` on ext4 and tmpfs, else as `file`. On another file system `map` can end
        /// the process when the disk is full
        live_writes: LiveWrites { reader: choice(), value: "HOW", default: "auto", applies: AfterRestart }

        /// Delete a user without slots this long after the last grant, 1h to 100years; or `never`. Deletion can be
        /// about a day later
        forget_after: Retention { reader: one(parse_retention), value: "TIME", default: "30d", applies: AfterRestart }

        /// Maximum users that the store keeps, 1000 to 1000000000 or `unlimited`; ten million take 1 to 3 GB. At the bound
        /// the server admits new users without recording them, until others are deleted. Overrides are always kept
        max_known_users: Bound {
            reader: bound(1000..=1_000_000_000),
            value: "N", default: "10000000", applies: AfterRestart
        }
    }

    "Store shared by several servers" {
        /// With `store = redis`, where it is: `redis://HOST[:PORT][/DB]`, `rediss://` for TLS, or `unix:///PATH[?db=DB]`. It may hold
        /// a user and a password, redis://USER:PASSWORD@HOST, which are never printed; as a flag they are in the list of
        /// processes. The port is 6379 by default
        redis_url: Option<RedisUrl> {
            reader: optional(redacted(RedisUrl::redact, one(RedisUrl::from_str))),
            value: "URL", default: "", applies: AfterRestart
        }

        /// Instead of `redis_url`: the Sentinels that know where the server is now, each redis://HOST:PORT, port 26379 by default;
        /// or rediss:// for TLS to them and to the server. A user and a password in it are for the Sentinel
        redis_sentinels: Vec<RedisUrl> {
            reader: list(redacted(RedisUrl::redact, one(RedisUrl::from_str_at_sentinel))),
            value: "URL", default: "", applies: AfterRestart
        }

        /// With `redis_sentinels`: the name under which they know the server
        redis_master: Option<String> { reader: optional(text()), value: "NAME", default: "", applies: AfterRestart }

        /// Instead of `redis_url`: some servers of a Redis Cluster, each redis://HOST:PORT, or rediss:// for TLS. They name
        /// the others
        redis_cluster: Vec<RedisUrl> {
            reader: list(redacted(RedisUrl::redact, one(RedisUrl::from_str))),
            value: "URL", default: "", applies: AfterRestart
        }

        /// How many replicas must have what this server confirms to the store, 0 to 8. With 1 or more, a Redis that is cut off
        /// from its replicas, but not from this server, cannot admit sessions beside the one that takes its place
        redis_replicas: u8 { reader: number(0..=8), value: "N", default: "0", applies: AfterRestart }

        /// Whether a session is admitted only once that many replicas have it, too. It costs a round trip to the replicas,
        /// and nobody is admitted while they are too few
        redis_wait: bool { reader: switch(), value: "BOOL", default: "false", applies: AfterRestart }

        /// The user to authenticate as, 1 to 256 bytes. If empty, that of `redis_url`, or else `default`
        redis_user: Option<String> {
            reader: optional(one(redis_user)),
            value: "USER", default: "", applies: AfterRestart
        }

        /// A file with the password. The environment variable SESSIONS_REDIS_PASSWORD can hold it instead. The server reads
        /// the file again for each connection
        redis_password_file: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AfterRestart }

        /// A file with the certificate authorities, in PEM, that the certificate of a rediss:// server must come from. If
        /// empty, the system's
        redis_ca: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AfterRestart }

        /// The certificate to present to a rediss:// server, in PEM, followed by the certificates of its issuers
        redis_cert: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AfterRestart }

        /// The private key of that certificate, in PEM
        redis_key: Option<PathBuf> { reader: optional(path()), value: "FILE", default: "", applies: AfterRestart }

        /// The prefix of all keys in the store, 1 to 64 ASCII letters, digits and `.`, `_`, `-`, `:`. Servers that share users
        /// must have the same one
        redis_prefix: String { reader: one(redis_prefix), value: "TEXT", default: "sessions", applies: AfterRestart }

        /// The name of this server among the others, as operators see it, 1 to 64 printable characters without spaces. If
        /// empty, the host name
        node_name: String { reader: one(node_name), value: "NAME", default: "", applies: AfterRestart }

        /// How often this server confirms to the store that it runs, 100ms to 1m
        node_beat: Duration {
            reader: duration(100 * MILLISECOND..=60 * SECOND),
            value: "TIME", default: "2s", applies: AfterRestart
        }

        /// A server that could not confirm this for so long closes its sessions, 100ms to 1h. At least twice `node_beat` plus
        /// `store_timeout`
        node_fence: Duration { reader: timeout(), value: "TIME", default: "20s", applies: AfterRestart }

        /// A server of which the others have seen no confirmation for so long is dead, and its slots become free or linger,
        /// 100ms to 2h. About 2% and 100ms longer than `node_fence`, or more. The same on all servers
        node_lease: Duration {
            reader: duration(100 * MILLISECOND..=2 * HOUR),
            value: "TIME", default: "25s", applies: AfterRestart
        }
    }

    "Log" {
        /// What to log to standard error: error, warn, info, debug, trace or off, or directives such as
        /// `info,session=debug`, which adds a line for every session that is admitted, resumed, lost, evicted or closed
        log: String { reader: one(log_filter), value: "LEVEL", default: "info", applies: AtOnce }

        /// The format of the log: text for people, json for programs
        log_format: LogFormat { reader: choice(), value: "FORMAT", default: "text", applies: AfterRestart }

        /// How the log names users: `plain`, by their ids; `hash`, by a keyed hash, whose key is in the file log-key of
        /// the data directory; or `off`, not at all
        log_users: LogUsers { reader: choice(), value: "HOW", default: "plain", applies: AtOnce }
    }
}

/// How users authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Authentication {
    /// By a user id, without proof.
    Open,
    /// By a signed JSON Web Token.
    Jwt,
}

/// Which store to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// LMDB in the data directory.
    Lmdb,
    /// A map in memory.
    Memory,
    /// Redis or Valkey, which several servers share.
    Redis,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// As humantime defines it.
const YEAR: Duration = Duration::from_secs(31_557_600);

pub(crate) fn parse_limit(text: &str) -> Result<SlotLimit, String> {
    if text == "unlimited" {
        return Ok(SlotLimit::MAX);
    }
    let slots = text.parse::<u32>().map_err(|_| "expected a whole number from 0 to 1024, or `unlimited`".to_owned())?;
    SlotLimit::new(slots).map_err(|error| error.to_string())
}

/// What can happen when all slots of a user are taken, with the name and the help of each.
pub(crate) fn when_full_values() -> [(WhenFull, PossibleValue); 2] {
    WhenFull::ALL.map(|when_full| {
        let help = match when_full {
            WhenFull::Deny => "The new session is denied",
            WhenFull::EvictOldest => "The session with the oldest slot is ended",
        };
        (when_full, PossibleValue::new(when_full.name()).help(help))
    })
}

fn count_values() -> [(CountBy, PossibleValue); 2] {
    CountBy::ALL.map(|count_by| {
        let help = match count_by {
            CountBy::Sessions => "Each session",
            CountBy::Devices => "All sessions of one device together",
        };
        (count_by, PossibleValue::new(count_by.name()).help(help))
    })
}

fn sessions_per_device(text: &str) -> Result<NonZeroU16, String> {
    let number = text.parse().ok().filter(|number: &NonZeroU16| u32::from(number.get()) <= SlotLimit::MAX.slots());
    number.ok_or_else(|| "expected a whole number from 1 to 1024".into())
}

fn waiting_sessions(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number: &u16| usize::from(*number) <= UserRecord::MAX_WAITING);
    number.ok_or_else(|| "expected a whole number from 0 to 64".into())
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

fn parse_retention(text: &str) -> Result<Retention, String> {
    if text == "never" {
        return Ok(Retention::Never);
    }
    duration_within(text, HOUR, 100 * YEAR).map(Retention::After).map_err(|error| format!("{error}; or write `never`"))
}

fn log_filter(text: &str) -> Result<String, String> {
    Log::parse_filter(text).map(|_| text.to_owned())
}

fn redis_user(text: &str) -> Result<String, String> {
    let is_user = text.len() <= 256 && !text.contains(|char: char| char.is_whitespace() || char.is_control());
    if is_user { Ok(text.into()) } else { Err("it must be 1 to 256 bytes without spaces".into()) }
}

fn redis_prefix(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.into())
    } else {
        Err("it must be 1 to 64 ASCII letters, digits and `.`, `_`, `-`, `:`".into())
    }
}

fn node_name(text: &str) -> Result<String, String> {
    let is_printable = |char: char| !char.is_whitespace() && !char.is_control();
    if text.chars().count() <= 64 && text.chars().all(is_printable) {
        Ok(text.into())
    } else {
        Err("it must be 1 to 64 printable characters without spaces, or empty for the host name".into())
    }
}
