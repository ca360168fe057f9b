//! Crash rounds with the real thing: the server binary on a real directory is killed, stopped and started twice, at
//! moments nobody chose. Afterwards nobody is locked out and no count is off.
//!
//! `CRASH_ROUNDS=200` runs more rounds, `CRASH_SEED=…` those of another run: the same choices, though threads and
//! kernel interleave as they like. `--nocapture` shows the times.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds, times and skipped tests are to be seen")]

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use session_core::protocol::AuthenticateFailure;
use shell::client::{Connection, Error, Url};
use smol::block_on;
use tests::raw_client::{RawClient, Received};
use tests::small_disk::SmallDisk;
use tests::test_process::{FirstLine, SpawnedProcess, address_in, wait_for_exit, without_connection_limits};
use tests::waiting::{TIMEOUT, eventually};

/// How many sessions a user may hold.
const LIMIT: u32 = 3;

#[test]
fn a_server_killed_at_any_moment_is_back_and_locks_nobody_out() {
    let mut random = Random::from_environment();
    let rounds = from_environment("CRASH_ROUNDS").unwrap_or(20);
    let mut directory = tempfile::tempdir().unwrap();
    let (mut from_start, mut from_listening) = (Vec::new(), Vec::new());
    let (mut population, mut operations) = (0, 0);
    for round in 0..rounds {
        let is_new = round == 0 || random.below(5) == 0;
        if is_new {
            directory = tempfile::tempdir().unwrap();
        }
        if random.below(4) == 0 {
            kill_while_starting(directory.path(), &mut random);
        }
        let start = Instant::now();
        let mut server = Server::start(directory.path(), &[]);
        let (listening, url) = (Instant::now(), server.url());
        let first = sign_in(&url, "first").unwrap_or_else(|error| panic!("round {round}: {error}"));
        let admitted = Instant::now();
        if !is_new {
            from_start.push(admitted - start);
            from_listening.push(admitted - listening);
        }
        assert_eq!(first.1, 1, "round {round}: the slots of the killed server count");
        let mut first = Account { held: vec![first.0], ..Account::new("first".into()) };
        first.take_the_rest(&url);

        let crowds = Crowd::all(&mut random);
        let crowds = in_parallel(crowds, |crowd| crowd.arrive(&url));
        population = 1 + crowds.iter().map(Crowd::users).sum::<usize>();
        operations += load_and_kill(&mut server, crowds, &mut random, |crowd| crowd.step(&url));
    }
    let [start, listening] = [from_start, from_listening].map(Times::of);
    println!("{rounds} rounds of {population} users with 3 sessions each, {operations} operations until the kills");
    println!("until the first admission after a kill: from the start {start}, from listening {listening}");
}

/// Kills a server that may have come as far as to serve, or not even as far as to open its directory.
fn kill_while_starting(data: &Path, random: &mut Random) {
    let mut server = Server::spawn(data, &[]);
    // Nothing is waited for: this is the random moment.
    thread::sleep(Duration::from_micros(random.below(30_000)));
    server.kill();
}

/// Has every crowd do one step after another, and kills the server at a random moment among them. How many steps were
/// taken by then.
fn load_and_kill<C: Send>(
    server: &mut Server,
    crowds: Vec<C>,
    random: &mut Random,
    step: impl Fn(&mut C) -> Result<(), Error> + Sync,
) -> usize {
    const MOST: usize = 100_000;
    let (target, pause) = (1 + random.below(300), Duration::from_micros(random.below(1000)));
    let (killed, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (reach, reached) = mpsc::channel();
    let work = |mut crowd: C| {
        for _ in 0..MOST {
            match step(&mut crowd) {
                Ok(()) if taken.fetch_add(1, Ordering::SeqCst) as u64 == target => reach.send(()).unwrap(),
                Ok(()) => {}
                Err(error) => {
                    assert!(killed.load(Ordering::SeqCst), "before the kill: {error}");
                    return;
                }
            }
        }
        panic!("still served after {MOST} steps");
    };
    thread::scope(|scope| {
        for crowd in crowds {
            scope.spawn(|| work(crowd));
        }
        let reached = reached.recv_timeout(TIMEOUT);
        // Not at the end of a step but somewhere in the next ones.
        let moment = Instant::now() + pause;
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        killed.store(true, Ordering::SeqCst);
        server.kill();
        reached.expect("so many steps are taken in time");
    });
    taken.into_inner()
}

fn in_parallel<T: Send>(items: Vec<T>, work: impl Fn(&mut T) + Sync) -> Vec<T> {
    let work = &work;
    let each = |mut item: T| {
        work(&mut item);
        item
    };
    thread::scope(|scope| {
        let running: Vec<_> = items.into_iter().map(|item| scope.spawn(move || each(item))).collect();
        running.into_iter().map(|thread| thread.join().expect("no check fails")).collect()
    })
}

/// The users of one thread, known to it alone.
struct Crowd {
    random: Random,
    /// They hold as much as they may, and keep it.
    content: Vec<Account>,
    /// They come and go.
    restless: Vec<Account>,
    /// Leaves while it is being admitted, so that nobody knows what it holds.
    hasty: Account,
}

impl Crowd {
    fn all(random: &mut Random) -> Vec<Self> {
        // Long names fill pages, which then split and merge.
        let account = |kind, crowd, number| Account::new(format!("{kind} {crowd} {number} {}", "x".repeat(200)));
        let crowd = |crowd| Self {
            random: random.fork(),
            content: (0..12).map(|number| account("content", crowd, number)).collect(),
            restless: (0..10).map(|number| account("restless", crowd, number)).collect(),
            hasty: account("hasty", crowd, 0),
        };
        (0..4).map(crowd).collect()
    }

    fn users(&self) -> usize {
        self.content.len() + self.restless.len() + 1
    }

    /// Everybody takes all that they may have, which must be all there.
    fn arrive(&mut self, url: &Url) {
        for account in self.content.iter_mut().chain(&mut self.restless) {
            account.take_the_rest(url);
        }
        self.hasty.take_the_rest(url);
        self.hasty.held.clear();
    }

    fn step(&mut self, url: &Url) -> Result<(), Error> {
        let (content, restless) = (self.random.index(&self.content), self.random.index(&self.restless));
        let account = &mut self.restless[restless];
        match self.random.below(8) {
            0 => match sign_in(url, &self.content[content].user) {
                Err(Error::LimitReached { .. }) => Ok(()),
                Err(error) => Err(error),
                Ok((_, connections)) => panic!("a fourth session was admitted as number {connections}"),
            },
            1 => block_on(async {
                let text = format!(r#"{{"type":"AUTHENTICATE","payload":"{}"}}"#, self.hasty.user);
                Connection::open(url).await?.send_text(text).await
            }),
            2 => {
                account.ghosts += u32::from(account.held.pop().is_some());
                Ok(())
            }
            3 | 4 => match account.held.pop() {
                Some(connection) => block_on(connection.bye()),
                None => Ok(()),
            },
            _ => account.enter(url),
        }
    }
}

/// A user and the sessions held.
struct Account {
    user: String,
    held: Vec<Connection>,
    /// Sessions that were dropped without a BYE, which the server may not have noticed yet: at most so many.
    ghosts: u32,
}

impl Account {
    fn new(user: String) -> Self {
        Self { user, held: Vec::new(), ghosts: 0 }
    }

    /// Enters until the limit: each grant tells how many are held by then, and one more is refused.
    fn take_the_rest(&mut self, url: &Url) {
        let user = &self.user;
        for number in u32::try_from(self.held.len()).unwrap() + 1..=LIMIT {
            let (connection, connections) =
                sign_in(url, user).unwrap_or_else(|error| panic!("number {number} of {user} is locked out: {error}"));
            assert_eq!(connections, number, "the count of {user} is off");
            self.held.push(connection);
        }
        let one_more = sign_in(url, user).map(|(_, connections)| connections);
        assert!(matches!(one_more, Err(Error::LimitReached { .. })), "one too many of {user}: {one_more:?}");
    }

    /// Tries to take a slot. The answer must be right, whichever it is.
    fn enter(&mut self, url: &Url) -> Result<(), Error> {
        let held = u32::try_from(self.held.len()).unwrap();
        match sign_in(url, &self.user) {
            Ok((connection, connections)) => {
                let most = (held + 1 + self.ghosts).min(LIMIT);
                assert!((held + 1..=most).contains(&connections), "{connections} beside {held} + {}", self.ghosts);
                self.held.push(connection);
                self.ghosts = connections - (held + 1);
                Ok(())
            }
            Err(Error::LimitReached { .. }) => {
                assert!(held + self.ghosts >= LIMIT, "refused beside {held} + {}", self.ghosts);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// A connection of this user, and how many the server says there are with it.
fn sign_in(url: &Url, user: &str) -> Result<(Connection, u32), Error> {
    block_on(async {
        let mut connection = Connection::open(url).await?;
        let connections = connection.authenticate(user).await?.connections;
        Ok((connection, connections))
    })
}

#[test]
fn a_server_stopped_for_longer_than_the_silence_bound_drops_only_the_silent() {
    const SILENCE_BOUND: Duration = Duration::from_secs(3);
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--ping-interval", "1s", "--pong-timeout", "2s"]);
    let address = server.address();
    let trio = |user: &str| (1..=LIMIT).map(|held| RawClient::authenticated(address, user, held)).collect::<Vec<_>>();
    let [mut answering, mut talking, leaving, mut silent, mut mixed] =
        ["answering", "talking", "leaving", "silent", "mixed"].map(trio);
    for peer in [&mut answering, &mut talking, &mut silent, &mut mixed].into_iter().flatten() {
        assert_eq!(peer.read(), Received::Ping);
    }
    // The server awaits their pongs. It has not yet pinged these, or does not know them at all.
    let [mut unpinged, mut unpinged_silent] = ["unpinged", "unpinged silent"].map(trio);
    let mut greeted = RawClient::open(address);

    server.signal(Signal::STOP);
    answering.iter_mut().chain(&mut mixed[..1]).for_each(RawClient::pong);
    talking.iter_mut().for_each(ask);
    drop(leaving);
    drop(mixed.remove(2));
    greeted.text(r#"{"type":"AUTHENTICATE","payload":"greeted"}"#);
    let mut newcomer = RawClient::connect(address);
    newcomer.write(HANDSHAKE);
    // Not to wait for something: the stop must last longer than the bound.
    thread::sleep(SILENCE_BOUND + Duration::from_millis(300));
    server.signal(Signal::CONT);
    let resumed = Instant::now();

    for (user, peers) in [("answering", &mut answering), ("unpinged", &mut unpinged), ("mixed", &mut mixed)] {
        let last = if user == "mixed" { 1 } else { peers.len() };
        peers[..last].iter_mut().for_each(ask);
        for peer in &mut peers[..last] {
            let count = connections_of(user, &hear(peer));
            assert!(count == LIMIT || user == "mixed", "{user}: {count}");
        }
    }
    talking.iter_mut().for_each(|peer| assert_eq!(connections_of("talking", &hear(peer)), LIMIT));
    assert!(hear(&mut greeted).contains(r#""id":"greeted","connections":1"#));
    newcomer.skip_head();
    newcomer.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);

    for user in ["leaving", "silent", "unpinged silent"] {
        eventually("the slots are back", || has_room_for_all(address, user));
    }
    eventually("only the one that answered is left", || {
        ask(&mut mixed[0]);
        connections_of("mixed", &hear(&mut mixed[0])) == 1
    });
    let took = resumed.elapsed();
    println!("after SIGCONT every slot was back within {took:?}");
    assert!(took < SILENCE_BOUND + Duration::from_secs(2), "{took:?}");
    for peer in silent.iter_mut().chain(&mut unpinged_silent).chain(&mut mixed[1..]) {
        assert_eq!(after_pings(peer), Received::Close(4408, "Peer was silent for too long".into()));
    }
}

const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn ask(peer: &mut RawClient) {
    peer.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
}

/// The next message. Pings before it are answered.
fn hear(peer: &mut RawClient) -> String {
    loop {
        match peer.read() {
            Received::Text(text) => return text,
            Received::Ping => peer.pong(),
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

fn after_pings(peer: &mut RawClient) -> Received {
    loop {
        match peer.read() {
            Received::Ping => {}
            other => return other,
        }
    }
}

fn connections_of(user: &str, reply: &str) -> u32 {
    let count = reply
        .strip_prefix(&format!(r#"{{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{{"id":"{user}","connections":"#));
    count.and_then(|rest| rest.strip_suffix("}}")?.parse().ok()).unwrap_or_else(|| panic!("{user}: {reply}"))
}

/// Whether the user can take as many slots as the limit allows, one after another.
fn has_room_for_all(address: SocketAddr, user: &str) -> bool {
    let mut peers = Vec::new();
    let all = (1..=LIMIT).all(|number| {
        let mut peer = RawClient::open(address);
        peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{user}"}}"#));
        let reply = hear(&mut peer);
        peers.push(peer);
        reply.contains(&format!(r#""connections":{number}}}"#))
    });
    peers.iter_mut().for_each(RawClient::send_bye);
    all
}

#[test]
fn of_servers_started_at_one_instant_exactly_one_serves() {
    let mut directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        if round % 4 == 0 {
            directory = tempfile::tempdir().unwrap();
        }
        let (data, count) = (directory.path().join("data"), 2 + round % 2);
        let ready = Barrier::new(count);
        let mut servers = in_parallel((0..count).map(|_| None).collect(), |server| {
            ready.wait();
            *server = Some(Server::spawn(&data, &[]));
        });
        let mut servers: Vec<_> = servers.drain(..).flatten().collect();
        eventually("all but one have ended", || {
            servers.iter_mut().filter_map(|server| server.child.try_wait().unwrap()).count() >= count - 1
        });
        let serving = servers.iter_mut().position(|server| server.child.try_wait().unwrap().is_none());
        let mut serving = servers.swap_remove(serving.expect("one serves"));
        serving.listen().unwrap_or_else(|words| panic!("round {round}: {words}"));
        for refused in servers {
            let (code, words) = refused.end();
            assert_eq!(code, Some(1), "{words}");
            assert!(words.contains(data.to_str().unwrap()) && words.contains("is in use by"), "{words}");
            let names = |id: u32| words.contains(&format!("process {id};"));
            // Between taking the lock and signing it, the one that serves is not known yet.
            assert!(names(serving.child.id()) || words.contains("by another process;"), "{words}");
        }
        Account::new("ada".into()).take_the_rest(&serving.url());
        serving.kill();
    }
}

#[test]
fn a_server_killed_on_a_full_disk_is_back_or_says_why_not() {
    let Some(disk) = SmallDisk::mount(1024) else {
        println!("skipped: mounting a file system is not allowed here");
        return;
    };
    let mut random = Random::from_environment();
    let data = disk.path().join("data");
    let (mut served, mut refused) = (0, 0);
    for round in 0..9 {
        // Few slots in a new file, and so no pages in it that could be used again; or many in an old one.
        let users = if round % 2 == 0 { 0 } else { 100 };
        if users == 0 {
            std::fs::remove_dir_all(&data).unwrap_or_default();
        }
        let mut server = Server::start(&data, &[]);
        let url = server.url();
        let mut witness = Account::new("witness".into());
        witness.take_the_rest(&url);
        let mut held: Vec<_> = (0..users).map(|number| sign_in(&url, &long_name(number)).unwrap().0).collect();
        disk.fill();
        held.extend(sign_in_until_full(&url, users));
        // Though nobody is admitted, slots come back.
        block_on(witness.held.pop().unwrap().bye()).unwrap();
        eventually("the slot is back", || {
            block_on(witness.held[0].check_connections()).is_ok_and(|user| user.connections == 2)
        });
        let crowds = Jostling::share(held, &mut random);
        load_and_kill(&mut server, crowds, &mut random, |crowd| crowd.step(&url));

        // With room, with what room the server had kept, and with none.
        match round % 3 {
            0 => disk.free(),
            1 => {}
            _ => disk.fill(),
        }
        let mut server = Server::spawn(&data, &[]);
        match server.listen() {
            Ok(()) => {
                served += 1;
                let url = server.url();
                match sign_in(&url, "witness") {
                    Ok((_, connections)) => assert_eq!(connections, 1, "round {round}"),
                    Err(error) => assert!(round % 3 > 0 && is_for_want_of_room(&error), "round {round}: {error}"),
                }
                if round % 3 > 0 {
                    disk.free();
                }
                eventually("all is well once there is room", || {
                    sign_in(&url, "newcomer")
                        .inspect_err(|error| assert!(is_for_want_of_room(error), "{error}"))
                        .is_ok()
                });
                everybody_is_well(&url);
            }
            Err(words) => {
                refused += 1;
                assert!(round % 3 > 0, "there was room: {words}");
                let (code, _) = server.end();
                assert_eq!(code, Some(1), "{words}");
                assert!(words.contains(data.to_str().unwrap()), "{words}");
                disk.free();
                everybody_is_well(&Server::start(&data, &[]).url());
            }
        }
    }
    println!("restarted after a kill on a full disk: {served} served, {refused} said why not");
}

fn everybody_is_well(url: &Url) {
    for number in (0..40).chain(100..110) {
        Account::new(long_name(number)).take_the_rest(url);
    }
}

/// Users who leave a server that is full, and others who try to get in.
struct Jostling {
    random: Random,
    held: Vec<Connection>,
}

impl Jostling {
    fn share(mut held: Vec<Connection>, random: &mut Random) -> Vec<Self> {
        let half = held.split_off(held.len() / 2);
        [held, half].map(|held| Self { random: random.fork(), held }).into()
    }

    fn step(&mut self, url: &Url) -> Result<(), Error> {
        if self.random.below(3) == 0
            && let Some(connection) = self.held.pop()
        {
            return block_on(connection.bye());
        }
        match sign_in(url, &long_name(1000 + self.random.below(1000))) {
            Ok((connection, _)) => self.held.push(connection),
            Err(Error::LimitReached { .. }) => {}
            Err(error) if is_for_want_of_room(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Signs in one user after another until somebody is turned away.
fn sign_in_until_full(url: &Url, first: u64) -> Vec<Connection> {
    const MOST: u64 = 3000;
    let mut held = Vec::new();
    for number in first..MOST {
        match sign_in(url, &long_name(number)) {
            Ok((connection, _)) => held.push(connection),
            Err(error) if is_for_want_of_room(&error) => return held,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{MOST} users were admitted and nothing was full");
}

fn is_for_want_of_room(error: &Error) -> bool {
    matches!(error, Error::Refused { refusal: AuthenticateFailure::Store(_), .. })
}

fn long_name(number: u64) -> String {
    format!("user {number} {}", "x".repeat(200))
}

/// The real server as a process of its own, which may also fail to start. Killed when dropped.
struct Server {
    child: Child,
    first_line: FirstLine,
    address: Option<SocketAddr>,
}

impl Server {
    /// Starts it and waits until it listens.
    fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::spawn(data, arguments);
        server.listen().unwrap_or_else(|words| panic!("the server does not start: {words}"));
        server
    }

    fn spawn(data: &Path, arguments: &[&str]) -> Self {
        let mut command = without_connection_limits(env!("CARGO_BIN_EXE_server-under-test"));
        command.args(["--log", "error"]).args(arguments).stderr(Stdio::piped());
        let SpawnedProcess { child, first_line } = SpawnedProcess::spawn(command, data);
        Self { child, first_line, address: None }
    }

    /// Waits until it listens, or else for what it says instead.
    fn listen(&mut self) -> Result<(), String> {
        self.address = address_in(&self.first_line.wait());
        self.address.map(drop).ok_or_else(|| self.words())
    }

    fn address(&self) -> SocketAddr {
        self.address.expect("it listens")
    }

    fn url(&self) -> Url {
        format!("ws://{}/", self.address()).parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Ends it with SIGKILL and waits until it has ended.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself: its exit code, and what it says about it.
    fn end(mut self) -> (Option<i32>, String) {
        (wait_for_exit(&mut self.child).code(), self.words())
    }

    /// What it has said on standard error, once it has ended.
    fn words(&mut self) -> String {
        wait_for_exit(&mut self.child);
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut words).unwrap();
        }
        words
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking()
            && let Some(mut stderr) = self.child.stderr.take()
        {
            let mut words = String::new();
            drop(stderr.read_to_string(&mut words));
            println!("the server said: {words}");
        }
    }
}

/// Numbers that look random and are those of the seed (xorshift64).
struct Random(u64);

impl Random {
    /// Of the seed that is asked for, or of the time. It is printed, for `CRASH_SEED`.
    fn from_environment() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed: u64 = from_environment("CRASH_SEED").unwrap_or_else(now);
        println!("CRASH_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from 0 to `bound`, which it is not.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index<T>(&mut self, items: &[T]) -> usize {
        usize::try_from(self.below(items.len() as u64)).unwrap()
    }

    /// Other numbers, of the same seed.
    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
}

/// How long something took, over many rounds.
struct Times {
    median: Duration,
    worst: Duration,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let worst = all.last().copied().unwrap_or_default();
        Self { median: all.get(all.len() / 2).copied().unwrap_or_default(), worst }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {:.1?}, worst {:.1?}", self.median, self.worst)
    }
}
