//! What can be set, within which bounds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use session_core::{Limit, Limits};

use crate::log::{Log, LogFormat};
use crate::store::{Forget, LmdbConfig};
use crate::threads::one_per_core;

/// The server's configuration. Every value was checked when it was parsed.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Where to listen: HOST:PORT, where HOST is an address or a name. Can be given several times, or as a list with
    /// commas. `localhost` is 127.0.0.1 and, where the machine has it, ::1. Port 0 lets the system choose
    #[arg(
        long,
        env = "SESSIONS_LISTEN",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "localhost:3000"
    )]
    pub listen: Vec<Listen>,

    /// The directory that holds the data. Created if it does not exist; one server at a time
    #[arg(long, env = "SESSIONS_DATA", value_name = "DIR", default_value = "./data")]
    pub data: PathBuf,

    /// How many sessions one user may hold at once, 1 to 1024
    #[arg(long, env = "SESSIONS_LIMIT", value_name = "SESSIONS", default_value_t = Limit::default(), value_parser = limit, allow_negative_numbers = true)]
    pub limit: Limit,

    /// How long a connection may take from its beginning until it is authenticated, 100ms to 1h
    #[arg(long, env = "SESSIONS_AUTH_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = patience)]
    pub auth_timeout: Duration,

    /// How long the store may take to answer, 10ms to 1m. Whoever waits longer is refused
    #[arg(long, env = "SESSIONS_STORE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = store_patience)]
    pub store_timeout: Duration,

    /// How long a client may be silent before it is sent a ping, 100ms to 1h
    #[arg(long, env = "SESSIONS_PING_INTERVAL", value_name = "TIME", default_value = "30s", value_parser = patience)]
    pub ping_interval: Duration,

    /// How long after that ping a client may still be silent before it counts as dead, 100ms to 1h
    #[arg(long, env = "SESSIONS_PONG_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = patience)]
    pub pong_timeout: Duration,

    /// The longest message a client may send, in bytes, 1024 to 1048576
    #[arg(
        long,
        env = "SESSIONS_MAX_MESSAGE_BYTES",
        value_name = "BYTES",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576)
    )]
    pub max_message_bytes: u32,

    /// Where users and slots are kept: in LMDB in the data directory, or in memory, where they end with the process
    #[arg(long, env = "SESSIONS_STORE", value_name = "KIND", default_value = "lmdb")]
    pub store: StoreKind,

    /// How long a user who holds no slot stays known after it was last granted one, 1h to 100years, or `never` to forget
    /// nobody. It is forgotten within about a day after that
    #[arg(long, env = "SESSIONS_FORGET_AFTER", value_name = "TIME", default_value = "30d", value_parser = forget)]
    pub forget_after: Forget,

    /// How many threads serve connections, 1 to 256 [default: one per core]
    #[arg(
        long,
        env = "SESSIONS_THREADS",
        value_name = "THREADS",
        default_value_t = one_per_core(),
        hide_default_value = true,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub threads: u16,

    /// What to log to standard error: error, warn, info, debug, trace or off, or directives such as `shell=debug`
    #[arg(long, env = "SESSIONS_LOG", value_name = "LEVEL", default_value = "info", value_parser = log_filter)]
    pub log: String,

    /// How to log: text for people, json for programs
    #[arg(long, env = "SESSIONS_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Which store to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// LMDB in the data directory.
    Lmdb,
    /// A map in memory.
    Memory,
}

impl Config {
    /// What bounds a session.
    #[must_use]
    pub fn session_limits(&self) -> Limits {
        Limits {
            auth_timeout: self.auth_timeout,
            ping_interval: self.ping_interval,
            pong_timeout: self.pong_timeout,
            ..Limits::default()
        }
    }

    /// Where and how the store keeps its data, if that is LMDB.
    #[must_use]
    pub fn lmdb(&self) -> LmdbConfig {
        LmdbConfig { forget_after: self.forget_after, ..LmdbConfig::new(&self.data, self.limit) }
    }
}

/// One `--listen`: the addresses its host stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What was asked for.
    pub text: String,
    /// At least one address.
    pub addresses: Vec<SocketAddr>,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let localhost = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
        let addresses: Vec<_> = if let Some(port) = localhost {
            // Not looked up: machines differ about what their hosts file says of it.
            let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            hosts.map(|host| SocketAddr::new(host, port)).into()
        } else {
            text.to_socket_addrs()
                .map_err(|error| format!("{error}; it must be HOST:PORT, as in 0.0.0.0:3000"))?
                .collect()
        };
        if addresses.is_empty() {
            return Err("this name has no address".into());
        }
        Ok(Self { text: text.into(), addresses })
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("with 0 nobody would ever be admitted, the least is 1".into()),
        Ok(slots) => Limit::new(slots).map_err(|error| error.to_string()),
        Err(_) => Err("expected a whole number, 1 to 1024".into()),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(100), Duration::from_secs(60 * 60))
}

fn store_patience(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(10), Duration::from_secs(60))
}

fn forget(text: &str) -> Result<Forget, String> {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    /// As humantime counts it.
    const YEAR: Duration = Duration::from_secs(31_557_600);
    if text == "never" {
        return Ok(Forget::Never);
    }
    duration(text, HOUR, 100 * YEAR).map(Forget::After).map_err(|error| format!("{error}; or write `never`"))
}

pub(crate) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as in 10s, 500ms or 2m"))?;
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("it must be {} to {}", humantime::format_duration(least), humantime::format_duration(most)))
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    Log::parse_filter(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn parse(arguments: &[&str]) -> Result<Config, String> {
        let arguments = ["server"].iter().chain(arguments);
        Cli::try_parse_from(arguments).map(|cli| cli.config).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_core_and_localhost() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.session_limits(), Limits::default());
        assert_eq!(config.limit.slots(), 3);
        assert_eq!(config.forget_after, Forget::default());
        let addresses: Vec<_> = config.listen[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:3000", "[::1]:3000"]);
    }

    #[test]
    fn values_out_of_bounds_are_refused_in_words() {
        for (arguments, words) in [
            (["--limit", "0"], "the least is 1"),
            (["--limit", "1025"], "the most is 1024"),
            (["--limit", "-1"], "expected a whole number"),
            (["--limit", "many"], "expected a whole number"),
            (["--auth-timeout", "10"], "write it as in 10s"),
            (["--auth-timeout", "99ms"], "it must be 100ms to 1h"),
            (["--ping-interval", "2h"], "it must be 100ms to 1h"),
            (["--pong-timeout", "soon"], "write it as in 10s"),
            (["--store-timeout", "61s"], "it must be 10ms to 1m"),
            (["--forget-after", "59m"], "it must be 1h to 100years; or write `never`"),
            (["--forget-after", "101y"], "it must be 1h to 100years; or write `never`"),
            (["--forget-after", "30"], "write it as in 10s, 500ms or 2m; or write `never`"),
            (["--max-message-bytes", "1023"], "1024..=1048576"),
            (["--threads", "0"], "1..=256"),
            (["--store", "redis"], "[possible values: lmdb, memory]"),
            (["--listen", "3000"], "it must be HOST:PORT"),
            (["--listen", "localhost:70000"], "invalid port"),
            (["--log", "shell=loud"], "invalid"),
            (["--log", "inof"], "\"inof\" is no level"),
        ] {
            let error = parse(&arguments).unwrap_err();
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_store_is_told_whom_to_forget_and_where_it_is() {
        let forget = |time: &str| parse(&["--forget-after", time]).unwrap().lmdb().forget_after;
        let hours = |hours: u64| Forget::After(Duration::from_secs(hours * 3600));
        let times = ["never", "1h", "90d", "100years"].map(forget);
        assert_eq!(times, [Forget::Never, hours(1), hours(90 * 24), hours(876_600)]);
        let lmdb = parse(&["--data", "there", "--limit", "7"]).unwrap().lmdb();
        assert_eq!((lmdb.directory, lmdb.limit), (PathBuf::from("there"), Limit::new(7).unwrap()));
    }

    #[test]
    fn listen_can_be_given_twice_and_as_a_list() {
        let config = parse(&["--listen", "127.0.0.1:1,127.0.0.1:2", "--listen", "[::1]:3"]).unwrap();
        let texts: Vec<_> = config.listen.iter().map(|listen| &*listen.text).collect();
        assert_eq!(texts, ["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"]);
    }
}
