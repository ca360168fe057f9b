//! Where the buckets are: at one server, at the server that Sentinels name, or spread over the servers of a cluster.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionAddr, ConnectionInfo, RedisError, Value};

use super::command::BucketNames;
use super::config::{RedisConfig, RedisPlace};
use super::link::{LinkError, connect};
use super::url::RedisUrl;

/// Names a server: `HOST:PORT` if others have named it, else empty, for there is one.
pub(super) type ServerName = Arc<str>;

/// Finds the servers of the buckets, and connects to them.
pub(super) struct Locator {
    config: RedisConfig,
    /// The servers of the buckets, by their numbers.
    homes: RwLock<Vec<ServerName>>,
    /// No two refreshes run at a time.
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    slots_of_buckets: Vec<u16>,
    refreshed_at: Option<Instant>,
    /// The Sentinel that has answered last.
    sentinel: usize,
}

/// What a server of a cluster says.
struct View {
    homes: Vec<ServerName>,
    /// Whether it is in touch with the others, and knows who has which slot. One that is cut off says what was.
    is_current: bool,
}

/// How long what was found is not asked for again.
const FRESH: Duration = Duration::from_millis(100);

impl Locator {
    /// Finds the servers of so many buckets for the first time.
    pub(super) fn new(config: RedisConfig, buckets: u16) -> Result<Self, LinkError> {
        let homes = RwLock::new(vec![ServerName::from(""); buckets.into()]);
        let locator = Self { config, homes, found: Mutex::default() };
        locator.refresh()?;
        Ok(locator)
    }

    pub(super) const fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// Whether there are several servers.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self.config.place, RedisPlace::Cluster(_))
    }

    /// The server of a bucket.
    pub(super) fn home(&self, bucket: u16) -> ServerName {
        self.homes.read().unwrap_or_else(PoisonError::into_inner)[usize::from(bucket)].clone()
    }

    /// All servers that have buckets.
    pub(super) fn servers(&self) -> BTreeSet<ServerName> {
        self.homes.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Where a server is, for an operator.
    pub(super) fn name(&self, server: &str) -> String {
        if server.is_empty() { self.config.place.to_string() } else { server.into() }
    }

    /// A connection to a server. Each call takes at most as long as any call to the store.
    pub(super) fn connect(&self, server: &str) -> Result<Connection, LinkError> {
        let timeout = self.config.call_timeout;
        match &self.config.place {
            RedisPlace::Server(url) => connect(self.config.connection_info(url)?, timeout),
            RedisPlace::Sentinels { .. } | RedisPlace::Cluster(_) => connect(self.info_of(server)?, timeout),
        }
    }

    /// A connection to the server of the first bucket. It also has what is kept once for all buckets.
    pub(super) fn connect_to_first(&self) -> Result<Connection, LinkError> {
        self.connect(&self.home(0))
    }

    /// A connection to any server, which passes messages on to all nodes, and its name.
    pub(super) fn connect_to_any(&self) -> Result<(ServerName, Connection), LinkError> {
        let mut last = LinkError::NotFound("there is none".into());
        for server in self.servers() {
            match self.connect(&server) {
                Ok(connection) => return Ok((server, connection)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn info_of(&self, server: &str) -> Result<ConnectionInfo, LinkError> {
        let address = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = address.ok_or_else(|| LinkError::NotFound(format!("{server:?} is no address")))?;
        Ok(self.config.info_of(host, port)?)
    }

    /// Whether a server that has no buckets any more still answers, so that somebody has to ask where they are.
    pub(super) const fn has_to_ask(&self) -> bool {
        matches!(self.config.place, RedisPlace::Sentinels { .. })
    }

    /// Asks the Sentinels, or the servers of a cluster, where the buckets are now.
    pub(super) fn refresh(&self) -> Result<(), LinkError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.refreshed_at.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(());
        }
        let homes = match &self.config.place {
            RedisPlace::Server(_) => return Ok(()),
            RedisPlace::Sentinels { sentinels, master } => {
                vec![self.primary(sentinels, master, &mut found.sentinel)?; self.buckets()]
            }
            RedisPlace::Cluster(start) => self.homes_in_cluster(start, &mut found.slots_of_buckets)?,
        };
        *self.homes.write().unwrap_or_else(PoisonError::into_inner) = homes;
        found.refreshed_at = Some(Instant::now());
        Ok(())
    }

    fn buckets(&self) -> usize {
        self.homes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Where the Sentinels say that the server is. The one that has answered last is asked first.
    fn primary(&self, sentinels: &[RedisUrl], master: &str, last: &mut usize) -> Result<ServerName, LinkError> {
        let mut problems = Vec::new();
        for number in (0..sentinels.len()).map(|next| (*last + next) % sentinels.len()) {
            match self.ask_sentinel(&sentinels[number], master) {
                Ok(server) => {
                    *last = number;
                    return Ok(server);
                }
                Err(error) => problems.push(format!("{}: {error}", sentinels[number])),
            }
        }
        Err(LinkError::NotFound(problems.join("; ")))
    }

    fn ask_sentinel(&self, sentinel: &RedisUrl, master: &str) -> Result<ServerName, LinkError> {
        let mut connection = connect(self.config.sentinel_info(sentinel)?, self.config.call_timeout)?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(master);
        let address: Option<(String, u16)> = command
            .query(&mut connection)
            .map_err(|error| if says(&error, "unknown command") { LinkError::NoSentinel } else { error.into() })?;
        let (host, port) = address.ok_or_else(|| LinkError::UnknownMaster(master.into()))?;
        Ok(format!("{host}:{port}").into())
    }

    fn homes_in_cluster(&self, start: &[RedisUrl], slots: &mut Vec<u16>) -> Result<Vec<ServerName>, LinkError> {
        let known = self.servers().into_iter().filter(|server| !server.is_empty());
        let known = known.map(|server| (server.to_string(), self.info_of(&server)));
        let start =
            start.iter().map(|url| (url.to_string(), self.config.connection_info(url).map_err(LinkError::from)));
        let (mut problems, mut doubtful) = (Vec::new(), None);
        for (name, info) in known.chain(start) {
            match info.and_then(|info| self.ask_cluster(info, slots)) {
                Ok(View { homes, is_current: true }) => return Ok(homes),
                Ok(view) => doubtful = doubtful.or(Some(view.homes)),
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        doubtful.ok_or_else(|| LinkError::NotFound(problems.join("; ")))
    }

    fn ask_cluster(&self, info: ConnectionInfo, of_buckets: &mut Vec<u16>) -> Result<View, LinkError> {
        let (ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) = info.addr() else {
            return Err(LinkError::NotFound("a cluster is not at a Unix socket".into()));
        };
        let host = host.clone();
        let mut connection = connect(info, self.config.call_timeout)?;
        let state: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).map_err(|error| {
            if says(&error, "cluster support disabled") { LinkError::NoCluster } else { error.into() }
        })?;
        let mut is_current = state.lines().any(|line| line == "cluster_state:ok");
        let buckets = self.buckets();
        if of_buckets.len() < buckets {
            let names = (0..).take(buckets).map(|bucket| BucketNames::new(&self.config.prefix, bucket));
            let slot = |names: BucketNames, connection: &mut Connection| {
                redis::cmd("CLUSTER").arg("KEYSLOT").arg(names.records()).query::<u16>(connection)
            };
            *of_buckets = names.map(|names| slot(names, &mut connection)).collect::<Result<_, _>>()?;
        }
        let reply: Value = redis::cmd("CLUSTER").arg("SLOTS").query(&mut connection)?;
        let ranges = slot_ranges(&reply, &host).ok_or(LinkError::Foreign("CLUSTER SLOTS"))?;
        let before = self.homes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let homes = of_buckets.iter().zip(before).map(|(slot, before)| {
            let range = ranges.iter().find(|(first, last, _)| (first..=last).contains(&slot));
            is_current &= range.is_some();
            // What nobody has now is expected where it was.
            range.map(|(_, _, server)| server.clone()).or(Some(before).filter(|before| !before.is_empty()))
        });
        let homes = homes.collect::<Option<_>>();
        let homes = homes.ok_or_else(|| LinkError::NotFound("some slots of the cluster have no server".into()))?;
        Ok(View { homes, is_current })
    }
}

/// Whether this is in what a server said.
fn says(error: &RedisError, words: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(words))
}

/// The ranges of slots, each with the server that takes writes. A server that does not know its own address has that at which it
/// was asked.
fn slot_ranges(reply: &Value, asked: &str) -> Option<Vec<(u16, u16, ServerName)>> {
    let Value::Array(ranges) = reply else { return None };
    let range = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &parts[..] else { return None };
        let [host, Value::Int(port), ..] = &primary[..] else { return None };
        let host = if let Value::BulkString(host) = host {
            std::str::from_utf8(host).ok()?
        } else if *host == Value::Nil {
            ""
        } else {
            return None;
        };
        let host = if host.is_empty() { asked } else { host };
        let server = format!("{host}:{port}").into();
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, server))
    };
    ranges.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn ranges_name_the_servers_that_take_writes() {
        let server = |host: Value, port| Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])]);
        let range = |first, last, servers: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], servers].concat())
        };
        let reply = Value::Array(vec![
            range(0, 5460, vec![server(bulk("10.0.0.1"), 7000), server(bulk("10.0.0.9"), 7001)]),
            range(5461, 16_383, vec![server(bulk(""), 7002)]),
        ]);
        let ranges = slot_ranges(&reply, "here").unwrap();
        assert_eq!(ranges, [(0, 5460, "10.0.0.1:7000".into()), (5461, 16_383, "here:7002".into())]);
        assert_eq!(slot_ranges(&Value::Array(vec![]), "here"), Some(vec![]));
        for foreign in [Value::Nil, Value::Array(vec![Value::Nil]), Value::Array(vec![range(0, 1, vec![])])] {
            assert_eq!(slot_ranges(&foreign, "here"), None);
        }
    }
}
