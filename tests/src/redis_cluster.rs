//! A Redis Cluster.

use std::thread;
use std::time::Duration;

use session_core::UserId;
use session_core::cluster::bucket_of;

use crate::fleet::SharedStore;
use crate::redis_process::{NOTHING_KEPT, RedisProcess, free_port};
use crate::waiting::eventually;

/// After so long without an answer, a server is down to the others.
pub const NODE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The number of slots of any cluster.
const SLOTS: usize = 16_384;

/// The number of masters.
const MASTERS: usize = 3;

/// The number of parts into which the servers spread the users.
const BUCKETS: u16 = 64;

/// Three masters that share the slots, perhaps with a replica each.
pub struct RedisCluster {
    /// The masters, at the start.
    pub masters: Vec<RedisProcess>,
    /// The replica of each. Empty if there are none.
    pub replicas: Vec<RedisProcess>,
}

impl RedisCluster {
    /// Starts a cluster in which a shard that is down does not stop the others, and waits until it is complete.
    #[must_use]
    pub fn start(has_replicas: bool) -> Self {
        let server = || {
            RedisProcess::start_with(None, || {
                let timeout = NODE_TIMEOUT.as_millis().to_string();
                let bus = free_port().to_string();
                let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", &timeout, "--cluster-port", &bus];
                let rest = ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"];
                cluster.iter().chain(&rest).chain(&NOTHING_KEPT).map(|word| (*word).to_owned()).collect()
            })
        };
        let masters: Vec<_> = (0..MASTERS).map(|_| server()).collect();
        let replicas: Vec<_> = (0..if has_replicas { MASTERS } else { 0 }).map(|_| server()).collect();
        for (index, master) in masters.iter().enumerate() {
            let (first, last) = (index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS - 1);
            master.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        let cluster = Self { masters, replicas };
        for (index, server) in cluster.servers().enumerate() {
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for server in cluster.servers().skip(1) {
            let bus = setting(server, "cluster-port");
            let port = server.port().to_string();
            cluster.masters[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let known = (cluster.masters.len() + cluster.replicas.len()).to_string();
        cluster.wait_until_all("know each other", |server| info(server, "cluster_known_nodes") == known);
        for (replica, master) in cluster.replicas.iter().zip(&cluster.masters) {
            replica.command(&["CLUSTER", "REPLICATE", &id(master)]);
            replica.wait_until_follows(master);
        }
        cluster.wait_until_complete();
        cluster
    }

    /// Waits until all servers know who has which slot.
    pub fn wait_until_complete(&self) {
        self.wait_until_all("have a complete cluster", |server| {
            let is_ok = info(server, "cluster_state") == "ok" && info(server, "cluster_slots_fail") == "0";
            is_ok && info(server, "cluster_slots_assigned") == SLOTS.to_string()
        });
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = &RedisProcess> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The slot of a user.
    #[must_use]
    pub fn slot_of(user: &str) -> u16 {
        let bucket = bucket_of(&UserId::parse(user).expect("a valid user"), BUCKETS);
        slot_of_key(&format!("test:{bucket}"))
    }

    /// The index of the master that has a user, at the start.
    #[must_use]
    pub fn shard_of(user: &str) -> usize {
        let slot = usize::from(Self::slot_of(user));
        (0..MASTERS).find(|index| slot < (index + 1) * SLOTS / MASTERS).expect("each slot has a master")
    }

    /// So many users of a shard, each of another bucket than the others.
    #[must_use]
    pub fn users_of(shard: usize, number: usize) -> Vec<String> {
        let all = (0..).map(|number| format!("u{number}")).filter(|user| Self::shard_of(user) == shard);
        let mut users = Vec::<String>::new();
        for user in all {
            if users.iter().all(|other| Self::slot_of(other) != Self::slot_of(&user)) {
                users.push(user);
            }
            if users.len() == number {
                break;
            }
        }
        users
    }

    /// Moves a slot from one master to another, key by key with these pauses. How many keys it had.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize, pause: Duration) -> usize {
        let (slot, from, to) = (slot.to_string(), &self.masters[from], &self.masters[to]);
        let (from_id, to_id) = (id(from), id(to));
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let mut moved = 0;
        loop {
            thread::sleep(pause);
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            let keys: Vec<String> = redis::from_redis_value(keys).expect("names of keys");
            let Some(key) = keys.first() else { break };
            from.command(&["MIGRATE", "127.0.0.1", &to.port().to_string(), key, "0", "1000"]);
            moved += 1;
        }
        for server in [to, from].into_iter().chain(&self.masters) {
            server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
        moved
    }

    /// A master loses all others, refuses what it is asked to do, and goes on to say that it has its slots, for the minute in
    /// which it wants to know of nobody. Its replica takes its place.
    pub fn replace_unnoticed(&self, shard: usize) {
        let master = &self.masters[shard];
        master.command(&["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
        for other in self.servers().filter(|other| other.port() != master.port()) {
            master.command(&["CLUSTER", "FORGET", &id(other)]);
        }
        self.replicas[shard].command(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    }

    fn wait_until_all(&self, what: &str, is_so: impl Fn(&RedisProcess) -> bool) {
        eventually(&format!("all servers {what}"), || self.servers().all(&is_so));
    }
}

impl SharedStore for RedisCluster {
    fn arguments(&self, _: usize) -> Vec<String> {
        let urls: Vec<_> = self.masters.iter().map(RedisProcess::url).collect();
        vec!["--redis-cluster".into(), urls.join(",")]
    }
}

/// The id of a server in its cluster.
#[must_use]
pub fn id(server: &RedisProcess) -> String {
    redis::from_redis_value(server.command(&["CLUSTER", "MYID"])).expect("an id")
}

/// A field of CLUSTER INFO.
fn info(server: &RedisProcess, field: &str) -> String {
    let text: String = redis::from_redis_value(server.command(&["CLUSTER", "INFO"])).expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

fn setting(server: &RedisProcess, name: &str) -> String {
    let (_, value): (String, String) =
        redis::from_redis_value(server.command(&["CONFIG", "GET", name])).expect("a setting");
    value
}

/// CRC16 as in XMODEM, of what stands in the braces of a key.
fn slot_of_key(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::slot_of_key;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!((slot_of_key("123456789"), slot_of_key("foo")), (0x31c3, 12_182));
    }
}
