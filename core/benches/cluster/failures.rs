//! How a cluster of many nodes recovers: of a node that is killed, and of a shard that has lost writes, or everything.

use std::collections::BTreeMap;

use session_core::cluster::{BucketKeys, bucket_of};
use session_core::ledger::{AdmissionPolicy, SlotLimit};
use session_core::{SessionId, UserId};

use crate::node::Told;
use crate::traffic::Traffic;
use crate::world::{BUCKETS, MS, Random, SECOND, World};

const NODES: usize = 100;
const SHARDS: usize = 4;
const USERS: usize = 50_000;
const SESSIONS_OF_USER: usize = 2;
const LIMIT: u32 = 3;

/// Sign-ins a second, and as many sign-outs, before a shard fails.
const RATE: u64 = 1000;

/// How long a shard cannot be reached when it fails over or restarts: the longest that the default times allow for.
const OUTAGE: u64 = 15 * SECOND;

/// In what time all nodes are connected again after that.
const RECONNECT: u64 = 100 * MS;

/// How long a recovery may take.
const PATIENCE: u64 = 120 * SECOND;

/// Prints each failure with its figures.
pub(crate) fn print() {
    let sessions = USERS * SESSIONS_OF_USER;
    println!(
        "\ncluster::failures: {NODES} nodes, {BUCKETS} buckets, {SHARDS} shards, {sessions} sessions of {USERS} users"
    );
    kill_node();
    lose_writes();
    lose_everything();
}

/// A cluster with its sessions.
struct Cluster {
    world: World,
    users: Vec<UserId>,
    /// The sessions, with user and node.
    sessions: Vec<(usize, usize, SessionId)>,
    random: Random,
}

impl Cluster {
    fn new() -> Self {
        let limit = SlotLimit::new(LIMIT).expect("it is below the ceiling");
        let mut world = World::new(NODES, BUCKETS, SHARDS, AdmissionPolicy::new(limit));
        let user = |number| UserId::parse(&format!("user-{number:08}")).expect("it is valid");
        world.run_until_open();
        let mut cluster =
            Self { world, users: (0..USERS).map(user).collect(), sessions: Vec::new(), random: Random(3) };
        for number in 0..USERS * SESSIONS_OF_USER {
            cluster.sign_in(number % USERS);
            if number % 20 == 0 {
                cluster.world.run_for(MS);
            }
        }
        cluster.world.run_for(5 * SECOND);
        cluster
    }

    fn sign_in(&mut self, user: usize) {
        let node = self.random.index(NODES);
        let bucket = bucket_of(&self.users[user], BUCKETS);
        let session = self.world.sign_in(node, &self.users[user], bucket);
        self.sessions.push((user, node, session));
    }

    /// Clients come and go for this time, always a millisecond apart.
    fn load(&mut self, time: u64) {
        let end = self.world.now + time;
        while self.world.now < end {
            let gone = self.random.index(self.sessions.len());
            let (user, node, session) = self.sessions.swap_remove(gone);
            self.world.sign_out(node, session);
            // Somewhere else, a little later than that.
            self.world.run_for(SECOND / RATE / 2);
            let other = (user + 1) % USERS;
            self.sign_in(other);
            self.world.run_for(SECOND / RATE / 2);
        }
    }

    /// Prints what happened since. `ended` and `before` are the counts at the beginning.
    fn report(&self, ended: usize, before: Traffic, idle: Traffic) {
        let ended = self.world.told(Told::Ended) - ended;
        let traffic = self.world.traffic() - before;
        let Traffic { reads, writes, refused, pages, others, .. } = traffic;
        line("sessions ended", &format!("{ended}, goal 0 {}", if ended == 0 { "met" } else { "MISSED" }));
        let all = traffic.work();
        line(
            "requests without beats",
            &format!("{all}: {reads} reads, {writes} writes ({refused} refused), {pages} pages, {others} others"),
        );
        let (pages, work) = (traffic.page_bytes / 1000, traffic.work_bytes() / 1000);
        line("bytes without beats", &format!("{work} kB, of them pages {pages} kB"));
        line("beats of all nodes, for a second", &format!("{}, {} kB", idle.beats, idle.beat_bytes / 1000));
    }

    /// The traffic of a second in which nothing happens.
    fn idle_second(&mut self) -> Traffic {
        let before = self.world.traffic();
        self.world.run_for(2 * SECOND);
        let Traffic { beats, beat_bytes, .. } = self.world.traffic() - before;
        Traffic { beats: beats / 2, beat_bytes: beat_bytes / 2, ..Traffic::default() }
    }
}

fn kill_node() {
    println!("one node is killed");
    let mut cluster = Cluster::new();
    let idle = cluster.idle_second();
    let Cluster { world, .. } = &mut cluster;
    let (ended, before, began) = (world.told(Told::Ended), world.traffic(), world.now);
    let dead = world.nodes[0].id;
    let held = world.nodes[0].sockets.len();
    world.nodes[0].is_killed = true;
    let has_slot = |world: &World| {
        let mut records = (0..SHARDS).flat_map(|shard| world.records(shard));
        records.any(|record| record.sessions().iter().any(|entry| entry.session.node() == dead))
    };
    let is_free = wait(world, |world| !has_slot(world));
    let last_write = world.shards.iter().map(|shard| shard.last_write).max().unwrap_or_default();
    line("its slots", &held.to_string());
    line("until all of them are free", &if is_free { millis(last_write - began) } else { "never".to_owned() });
    world.run_for(10 * SECOND);
    cluster.report(ended, before, idle);
}

fn lose_writes() {
    println!(
        "one shard fails over: it has lost its last second of writes, and cannot be reached for {}",
        millis(OUTAGE)
    );
    let mut cluster = Cluster::new();
    let idle = cluster.idle_second();
    cluster.load(SECOND);
    let replica = cluster.world.shards[0].buckets.clone();
    cluster.load(SECOND);
    fail(cluster, replica, idle);
}

fn lose_everything() {
    println!("one shard loses everything, and cannot be reached for {}", millis(OUTAGE));
    let mut cluster = Cluster::new();
    let idle = cluster.idle_second();
    cluster.load(2 * SECOND);
    fail(cluster, BTreeMap::new(), idle);
}

fn fail(mut cluster: Cluster, left: BTreeMap<u16, BucketKeys>, idle: Traffic) {
    let world = &mut cluster.world;
    let (ended, before, began) = (world.told(Told::Ended), world.traffic(), world.now);
    let sockets: usize = world.nodes.iter().map(|node| node.sockets.len()).sum();
    world.disconnect(0);
    world.run_for(OUTAGE);
    let back = world.now;
    world.shards[0].fail_over(left);
    world.reconnect(0, RECONNECT);
    let is_restored = wait(world, |world| world.has_entries(0));
    let restored = if is_restored { millis(world.now - back) } else { "never".to_owned() };
    // By now each bucket has begun another generation.
    world.run_until(world.now.max(back + 2 * RECONNECT));
    let buckets: Vec<_> = world.buckets_of(0).collect();
    let is_open = wait(world, |world| world.shards[0].is_open(buckets.iter().copied()));
    let open = if is_open { millis(world.now - back) } else { "never".to_owned() };
    let does_admit = wait(world, |world| world.may_admit(0));
    let admit = if does_admit { millis(world.now - back) } else { "never".to_owned() };
    let is_equal = wait(world, |world| world.equals_sockets(0));
    let equal = if is_equal { millis(world.shards[0].last_write - back) } else { "never".to_owned() };
    line("sessions", &sockets.to_string());
    line("until each socket has an entry, after that", &restored);
    line("until each bucket is open", &open);
    line("until each node admits", &admit);
    line("until records equal sockets", &equal);
    line("in all, since the shard failed", &millis(world.now - began));
    world.run_for(10 * SECOND);
    cluster.report(ended, before, idle);
}

/// Lets time pass until this is so, by 10 ms each time. Returns whether it became so in time.
fn wait(world: &mut World, is_so: impl Fn(&World) -> bool) -> bool {
    let end = world.now + PATIENCE;
    while !is_so(world) {
        if world.now >= end {
            return false;
        }
        world.run_for(10 * MS);
    }
    true
}

fn line(what: &str, figures: &str) {
    println!("    {what:<44} {figures}");
}

fn millis(micros: u64) -> String {
    format!("{} ms", micros / MS)
}
