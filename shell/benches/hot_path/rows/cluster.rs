//! The store in a Redis: full cycles, sign-ins, decisions, what an idle node and a user cost, and how long a recovery takes.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use session_core::cluster::ClusterTiming;
use session_core::ledger::{AdmissionPolicy, EndedSession, Outcome, SessionHint, SlotLimit, StoreCommand};
use session_core::{NodeId, SessionId, UserId};
use shell::client::bench::load::LoadProfile;
use shell::runtime::process::Process as ServerProcess;
use shell::store::{Completion, RedisConfig, RedisPlace, RedisStore, SessionNotifier, Store, StoreHealth};
use tests::processor_time;
use tests::redis_process::{NOTHING_KEPT, RedisProcess};

use super::KNOWN;
use crate::measure::{Bench, Load, ROUNDS, Run, SLICE, median, quartiles};
use crate::process::Process;
use crate::table::{Goal, Row, Table};

/// How many users take turns in the decisions.
const USERS: u64 = 100_000;

/// How many sessions are asserted again in a recovery, on two nodes together.
const RECOVERED: u64 = 60_000;

pub(super) fn cluster(bench: &Bench, table: &mut Table) -> Result<()> {
    if !RedisProcess::is_installed() {
        table.note("cluster: redis-server is not installed");
        return Ok(());
    }
    cycles(bench, table)?;
    idle(bench, table)?;
    decisions(bench, table)?;
    memory(bench, table)?;
    recovery(bench, table)
}

/// A server of its users in this Redis, once it admits.
fn server(bench: &Bench, redis: &RedisProcess, name: &str) -> Result<Process> {
    let (data, url) = (bench.directory.join(name), redis.url());
    let times = ["--node-beat", "2s", "--node-fence", "5s", "--node-lease", "6s", "--store-timeout", "500ms"];
    let options = [&["--store", "redis", "--redis-url", &url], &times[..]].concat();
    let server = Process::server(&data, &options)?;
    // The lease, and the beats around it.
    thread::sleep(Duration::from_secs(12));
    Ok(server)
}

/// Full cycles, and the time of a sign-in at a quarter of the floor's rate.
fn cycles(bench: &Bench, table: &mut Table) -> Result<()> {
    let redis = RedisProcess::start(&NOTHING_KEPT);
    let (floor, server) = (Process::floor(&[])?, server(bench, &redis, "cycles")?);
    let before = processor_time::of_process(redis.id()).context("no processor time in proc(5)")?;
    let load = Load::new(KNOWN, LoadProfile::Concurrency(64));
    let rounds = bench.in_turns([&floor, &server], load)?;
    let after = processor_time::of_process(redis.id()).context("no processor time in proc(5)")?;
    let cycles: f64 = rounds.iter().map(|[_, server]| server.counts.cycles as f64).sum();
    let goals = [Goal::AtLeast { ratio: 0.75, of: "floor" }, Goal::None];
    super::cycles::add(table, &rounds, "store in a Redis: full cycles, 64 at once", goals);
    let of_one = (after - before).as_secs_f64() * 1e6 / cycles;
    table.note(&format!("  processor time of the Redis beside it, for one: about {of_one:.0} µs"));
    let rate = median(&rounds, |[floor, _]| floor.per_second) / 4.0;
    let rounds = bench.in_turns([&floor, &server], Load::new(KNOWN, LoadProfile::Rate(rate)))?;
    for (quantile, name, goal) in [(0.5, "p50", Goal::Below(1.0)), (0.99, "p99", Goal::None)] {
        let figure = format!("store in a Redis: AUTHENTICATE to reply at {rate:.0}/s, open loop, {name}");
        let value = |run: &Run| run.sign_in_millis(quantile);
        table.add(Row::of_rounds(&rounds, &figure, "ms", goal, value));
    }
    Ok(())
}

/// The commands of a node without sessions.
fn idle(bench: &Bench, table: &mut Table) -> Result<()> {
    const LOOKED: Duration = Duration::from_secs(10);
    let redis = RedisProcess::start(&NOTHING_KEPT);
    let _server = server(bench, &redis, "idle")?;
    // What scripts call counts as commands, too; what clients call is what the log of commands has.
    let scripts = || redis.command_calls("evalsha") as f64;
    let before = scripts();
    thread::sleep(LOOKED);
    table.add(Row {
        figure: "store in a Redis: scripts of an idle node".into(),
        unit: "per second",
        server: (scripts() - before) / LOOKED.as_secs_f64(),
        goal: Goal::Below(40.0),
        disturbed: (0, 1),
        ..Row::default()
    });
    Ok(())
}

/// Who hears of sessions that have lost their slots: nobody.
struct Deaf;

impl SessionNotifier for Deaf {
    fn notify(&self, _: &UserId, _: Vec<EndedSession>) {}

    fn hint(&self, _: Vec<SessionHint>) {}
}

/// A node in this process.
struct Node {
    store: Arc<RedisStore>,
    id: NodeId,
    _data: tempfile::TempDir,
}

impl Node {
    fn start(redis: &RedisProcess, id: u64) -> Result<Self> {
        let second = Duration::from_secs(1);
        let place = RedisPlace::Server(redis.url().parse().map_err(anyhow::Error::msg)?);
        let config = RedisConfig {
            prefix: "bench".into(),
            timing: ClusterTiming::new(second * 2, second * 10, second * 11, second * 5)?,
            node_name: format!("node-{id}"),
            ..RedisConfig::new(place, AdmissionPolicy::new(SlotLimit::default()))
        };
        let (data, id) = (tempfile::tempdir()?, NodeId::new(id));
        let store = Arc::new(RedisStore::open(&config, data.path(), id, ServerProcess::start())?);
        store.set_notifier(Arc::new(Deaf));
        Ok(Self { store, id, _data: data })
    }

    fn wait_until_it_admits(&self) {
        while smol::block_on(self.store.health()) != StoreHealth::Ready {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn acquire(&self, user: &UserId, session: SessionId, answers: &Sender<(u64, Outcome)>) {
        let at = self.store.context().process().clock.now();
        let command = StoreCommand::Acquire { user: user.clone(), session, limit: None, at, options: None };
        self.submit(command, session.number(), answers);
    }

    fn submit(&self, command: StoreCommand, number: u64, answers: &Sender<(u64, Outcome)>) {
        let answers = answers.clone();
        self.store.submit(command, Completion::new(move |outcome| drop(answers.send((number, outcome)))));
    }

    /// Acquires and releases slots for a while, `at_once` of them at a time. Returns how many commands were decided.
    fn decide(&self, at_once: u64, base: u64, duration: Duration) -> Result<u64> {
        let (sender, answers): (Sender<_>, Receiver<(u64, Outcome)>) = channel();
        let user = |number: u64| UserId::parse(&format!("user-{:08}", number % USERS)).expect("it is valid");
        let (began, mut decided, mut next, mut under_way) = (Instant::now(), 0, base, 0);
        while under_way < at_once {
            self.acquire(&user(next), self.id.session(next), &sender);
            (next, under_way) = (next + 1, under_way + 1);
        }
        while under_way > 0 {
            let (number, outcome) = answers.recv()?;
            decided += 1;
            let (user_of, session) = (user(number), self.id.session(number));
            if matches!(outcome, Outcome::Granted { .. }) {
                ensure!(self.store.tell(&user_of, session), "a grant is void");
                self.submit(StoreCommand::Release { user: user_of, session }, number, &sender);
                continue;
            }
            ensure!(outcome == Outcome::Released, "session {number}: {outcome:?}");
            if began.elapsed() < duration {
                self.acquire(&user(next), self.id.session(next), &sender);
                next += 1;
            } else {
                under_way -= 1;
            }
        }
        Ok(decided)
    }
}

/// What redis-benchmark reaches with the script that a sign-in runs.
fn redis_benchmark(redis: &RedisProcess, at_once: u64) -> Result<f64> {
    let script = RedisStore::write_script();
    let hash = redis.load_script(&script);
    // About as long as the record of one session. The command expects its stamp, so each one writes.
    let value = "A".repeat(78);
    redis.command(&["HSET", "{bench:b}:meta", "generation", "g"]);
    redis.command(&["HSET", "{bench:b}:records", "user-00000001", &value]);
    let connections = 4.min(at_once);
    let output = Command::new("redis-benchmark")
        .args(["-p", &redis.address().port().to_string(), "-c", &connections.to_string()])
        .args(["-P", &(at_once / connections).to_string(), "-n", "400000", "--csv"])
        .args(["EVALSHA", &hash, "2", "{bench:b}:meta", "{bench:b}:records"])
        .args(["user-00000001", "g", "floor 0000000000000001", "00000000000000000001", "AAAAAAAA", "", &value])
        .output()
        .context("redis-benchmark does not run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().context("it prints nothing")?;
    let rate = last.split(',').nth(1).context("it prints no rate")?.trim_matches('"').parse()?;
    redis.command(&["DEL", "{bench:b}:meta", "{bench:b}:records"]);
    Ok(rate)
}

/// Decisions per second, beside redis-benchmark with the same script, in turns.
fn decisions(_: &Bench, table: &mut Table) -> Result<()> {
    let redis = RedisProcess::start(&NOTHING_KEPT);
    let one = Node::start(&redis, 1)?;
    one.wait_until_it_admits();
    let two = Node::start(&redis, 2)?;
    two.wait_until_it_admits();
    let mut base = 0;
    for at_once in [64, 256, 1024] {
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let bare = redis_benchmark(&redis, at_once)?;
            base += 10_000_000;
            let alone = one.decide(at_once, base, SLICE)? as f64 / SLICE.as_secs_f64();
            let together = thread::scope(|scope| {
                let other = scope.spawn(|| two.decide(at_once / 2, base + 5_000_000, SLICE));
                let own = one.decide(at_once / 2, base + 5_000_000, SLICE)?;
                other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.map(|other| own + other)
            })? as f64
                / SLICE.as_secs_f64();
            if round > 0 {
                rounds.push([bare, alone, together]);
            }
        }
        for (index, who, goal) in [
            (1, "one node", Goal::AtLeast { ratio: 0.8, of: "redis-benchmark" }),
            (2, "two nodes", Goal::AtLeast { ratio: 0.8, of: "redis-benchmark" }),
        ] {
            table.add(Row {
                figure: format!("store in a Redis: decisions, {at_once} at once, {who} (beside: redis-benchmark)"),
                unit: "per second",
                beside: Some(median(&rounds, |round| round[0])),
                server: median(&rounds, |round| round[index]),
                ratio: Some(median(&rounds, |round| round[index] / round[0])),
                quartiles: Some(quartiles(&rounds, |round| round[index] / round[0])),
                goal,
                disturbed: (0, rounds.len()),
                ..Row::default()
            });
        }
    }
    Ok(())
}

/// Takes slots for users, one each, with at most 1,024 commands under way, and tells each.
fn admit(node: &Node, numbers: impl Iterator<Item = u64>) -> Result<()> {
    let (sender, answers) = channel();
    let user = |number: u64| UserId::parse(&format!("user-{number:08}")).expect("it is valid");
    let mut under_way = VecDeque::new();
    let settle = || -> Result<()> {
        let (number, outcome): (u64, Outcome) = answers.recv()?;
        ensure!(matches!(outcome, Outcome::Granted { .. }), "{outcome:?}");
        ensure!(node.store.tell(&user(number), node.id.session(number)), "a grant is void");
        Ok(())
    };
    for number in numbers {
        node.acquire(&user(number), node.id.session(number), &sender);
        under_way.push_back(number);
        if under_way.len() == 1024 {
            settle()?;
            under_way.pop_front();
        }
    }
    under_way.into_iter().try_for_each(|_| settle())
}

/// What a user with one session takes in the memory of the Redis.
fn memory(_: &Bench, table: &mut Table) -> Result<()> {
    let redis = RedisProcess::start(&NOTHING_KEPT);
    let node = Node::start(&redis, 1)?;
    node.wait_until_it_admits();
    let used = || redis.info("memory", "used_memory").parse::<f64>();
    let before = used()?;
    admit(&node, 0..USERS)?;
    let bytes = (used()? - before) / USERS as f64 - "user-00000001".len() as f64;
    table.add(Row {
        figure: "store in a Redis: its memory for a user with one session, beyond the id".into(),
        unit: "bytes",
        server: bytes,
        goal: Goal::Below(160.0),
        disturbed: (0, 1),
        ..Row::default()
    });
    Ok(())
}

/// The Redis forgets everything while two nodes serve many sessions.
fn recovery(_: &Bench, table: &mut Table) -> Result<()> {
    let redis = RedisProcess::start(&NOTHING_KEPT);
    let nodes = [Node::start(&redis, 1)?, Node::start(&redis, 2)?];
    for (node, first) in nodes.iter().zip([0, RECOVERED / 2]) {
        node.wait_until_it_admits();
        admit(node, first..first + RECOVERED / 2)?;
    }
    let sessions = Mutex::new(0_u64);
    redis.command(&["FLUSHALL"]);
    let began = Instant::now();
    let count = || nodes[0].store.usage();
    let mut first = None;
    let (asserted, opened) = loop {
        let known = smol::block_on(count()).known_users.unwrap_or(0) as u64;
        *sessions.lock().expect("nobody panics") = known;
        first = first.or((known > 0).then(|| began.elapsed()));
        if known == RECOVERED {
            let asserted = began.elapsed() - first.unwrap_or_default();
            nodes.iter().for_each(Node::wait_until_it_admits);
            break (asserted, began.elapsed());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "{known} of {RECOVERED} sessions are asserted");
        thread::sleep(Duration::from_millis(10));
    };
    let row = |figure: String, value: Duration, goal| Row {
        figure,
        unit: "s",
        server: value.as_secs_f64(),
        goal,
        disturbed: (0, 1),
        ..Row::default()
    };
    table.add(row(
        format!("after FLUSHALL: {RECOVERED} sessions of two nodes are in it again, from the first on"),
        asserted,
        Goal::Below(1.0),
    ));
    // A beat until somebody notices, the lease, a beat to open the gate and one to see it.
    table.add(row("after FLUSHALL: the nodes admit again (lease 11 s, beat 2 s)".into(), opened, Goal::Below(17.1)));
    let session = |number: u64| UserId::parse(&format!("user-{number:08}")).expect("it is valid");
    let lost = (0..RECOVERED).filter(|number| {
        let node = &nodes[usize::from(*number >= RECOVERED / 2)];
        !node.store.may_serve(&session(*number))
    });
    ensure!(lost.count() == 0, "sessions were lost");
    Ok(())
}
