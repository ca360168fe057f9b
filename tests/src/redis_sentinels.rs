//! A Redis with replicas, and Sentinels that put a replica in its place.

use std::time::Duration;

use crate::fleet::SharedStore;
use crate::redis_process::{NOTHING_KEPT, RedisProcess};
use crate::waiting::eventually;

/// The name under which the Sentinels know it.
pub const NAME: &str = "sessions";

/// The Sentinels. Two of them have to agree.
const SENTINELS: usize = 3;

/// After so long without an answer, a server is down to a Sentinel.
pub const DOWN_AFTER: Duration = Duration::from_secs(1);

/// Servers that Sentinels watch. The first one is the primary, at the start.
pub struct RedisSentinels {
    /// The primary and its replicas.
    pub servers: Vec<RedisProcess>,
    /// Who watches them.
    pub sentinels: Vec<RedisProcess>,
}

impl RedisSentinels {
    /// Starts a primary, so many replicas and three Sentinels, and waits until all know each other.
    #[must_use]
    pub fn start(replicas: usize) -> Self {
        let primary = RedisProcess::start(&NOTHING_KEPT);
        let replicas: Vec<_> = (0..replicas).map(|_| primary.start_replica(&NOTHING_KEPT)).collect();
        let configuration = format!(
            "sentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {NAME} {}\n\
             sentinel failover-timeout {NAME} 3000\nsentinel parallel-syncs {NAME} 2\n",
            primary.port(),
            DOWN_AFTER.as_millis()
        );
        let sentinel = |_| RedisProcess::start_with(Some(configuration.clone()), || vec!["--sentinel".into()]);
        let sentinels: Vec<_> = (0..SENTINELS).map(sentinel).collect();
        let expected = [("num-slaves", replicas.len()), ("num-other-sentinels", SENTINELS - 1)];
        let servers = [primary].into_iter().chain(replicas).collect();
        let group = Self { servers, sentinels };
        eventually("the Sentinels know each other", || {
            group.sentinels.iter().all(|sentinel| {
                let fields: Vec<String> =
                    redis::from_redis_value(sentinel.command(&["SENTINEL", "MASTER", NAME])).expect("texts");
                expected.iter().all(|(name, number)| {
                    fields.chunks(2).any(|field| field[0] == *name && field[1] == number.to_string())
                })
            })
        });
        group
    }

    /// The index of the server that the Sentinels name, once they all name the same one, which is not this.
    #[must_use]
    pub fn wait_for_primary_other_than(&self, former: usize) -> usize {
        let mut primary = former;
        eventually("the Sentinels name another primary", || {
            let named = |sentinel: &RedisProcess| {
                let reply = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
                let (_, port): (String, u16) = redis::from_redis_value(reply).expect("an address");
                self.servers.iter().position(|server| server.port() == port).expect("one of the servers")
            };
            let all: Vec<_> = self.sentinels.iter().map(named).collect();
            primary = all[0];
            primary != former && all.iter().all(|one| *one == primary)
        });
        primary
    }
}

impl SharedStore for RedisSentinels {
    fn arguments(&self, _: usize) -> Vec<String> {
        let urls: Vec<_> = self.sentinels.iter().map(RedisProcess::url).collect();
        vec!["--redis-sentinels".into(), urls.join(","), "--redis-master".into(), NAME.into()]
    }
}
