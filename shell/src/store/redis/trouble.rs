//! What happens when the store, or the way to it, does what it should not.

#![allow(clippy::print_stderr, reason = "it tells who runs the tests what was measured")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use session_core::cluster::{ClusterTiming, Request, RequestId};
use session_core::ledger::AdmissionPolicy;
use session_core::{NodeId, UserId};

use super::command::{BucketNames, Packer};
use super::config::{RedisConfig, RedisPlace};
use super::link::{Link, Replicas, Sent, connect};
use super::script::Script;
use super::testing::RedisServer;
use super::{reply, value};

fn config(url: &str) -> RedisConfig {
    RedisConfig {
        prefix: "test".into(),
        call_timeout: Duration::from_secs(1),
        ..RedisConfig::new(RedisPlace::Server(url.parse().unwrap()), AdmissionPolicy::default())
    }
}

/// A primary that becomes another one on the same connection after its handshake (REPLICAOF, a load balancer), answers one read, and
/// is gone before it has named its history.
fn server_that_changes() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut out = stream;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let count: usize = line.trim()[1..].parse().unwrap();
            let words: Vec<String> = (0..count)
                .map(|_| {
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                    let mut bytes = vec![0; line.trim()[1..].parse::<usize>().unwrap() + 2];
                    reader.read_exact(&mut bytes).unwrap();
                    String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned()
                })
                .collect();
            let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let answer = match &words[..] {
                ["INFO", "server"] => bulk("redis_version:7.0.0\r\n"),
                ["INFO", _] => bulk(&format!("role:master\r\nmaster_replid:{}\r\n", "a".repeat(40))),
                ["SCRIPT", _, source] if source.contains("acl_check_cmd") => bulk("rights"),
                ["SCRIPT", ..] => bulk("hash"),
                // The check of the rights.
                ["EVALSHA", "rights", ..] => "*0\r\n".into(),
                // Now it has another history. The INFO behind it is never answered.
                ["EVALSHA", ..] => {
                    out.write_all(b"*3\r\n$18\r\n0000000000000001-1\r\n$-1\r\n$-1\r\n").unwrap();
                    return;
                }
                _ => "+OK\r\n".into(),
            };
            out.write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

#[test]
fn answer_without_a_history_does_not_count() {
    let config = config(&format!("redis://127.0.0.1:{}", server_that_changes()));
    let RedisPlace::Server(url) = &config.place else { panic!("there is one server") };
    let connection = connect(config.connection_info(url).unwrap(), config.call_timeout).unwrap();
    let mut link = Link::open(connection, &config.prefix, config.call_timeout).unwrap();
    let names = BucketNames::new("test", 0);
    let request = Request::Read(UserId::parse("ada").unwrap());
    let mut answers = Vec::new();
    let replicas = Replicas { number: 0, confirm_grants: false, timeout: config.call_timeout };
    link.send(vec![Sent { bucket: 0, names: &names, id: RequestId(1), request }], &replicas).unwrap();
    let result = link.receive(&replicas, &mut answers);
    assert!(result.is_err(), "INFO was not answered");
    let known = value::parse_history(&"a".repeat(40)).unwrap();
    for received in answers {
        assert_ne!(
            received.answer.history, known,
            "the store never said that it had that history: {:?}",
            received.answer
        );
    }
}

#[test]
fn walk_passes_a_record_that_is_too_short() {
    let Some(server) = RedisServer::start() else { return };
    let mut store = server.client().get_connection().unwrap();
    let names = BucketNames::new("test", 7);
    let records = names.records();
    for bytes in [&b"12345678"[..], b"12345678901"] {
        redis::cmd("HSET").arg(records).arg("ada").arg(bytes).exec(&mut store).unwrap();
        let hashes: Vec<String> = Script::ALL
            .into_iter()
            .map(|script| redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query(&mut store).unwrap())
            .collect();
        let mut out = Vec::new();
        let request = Request::Scan { from: None, except: vec![NodeId::new(1)], lingering: true };
        let expected = Packer::new(&hashes).pack(&names, request, &mut out);
        let answer = redis::ConnectionLike::req_packed_command(&mut store, &out);
        let answer = answer.unwrap();
        let mut unreadable = Vec::new();
        assert!(reply::parse(expected, &answer, &mut unreadable).is_ok(), "{answer:?}");
        drop(Arc::new(unreadable));
    }
}

use session_core::ledger::{AcquireOptions, Outcome, StoreCommand, UserOverrides};

use super::store::RedisStore;
use crate::runtime::clock::Clock;
use crate::runtime::process::Process;
use crate::server::registry::{Registration, Registry};
use crate::server::slot_guard::SlotGuard;
use crate::server::store_client::StoreClient;
use crate::store::api::{Store, UserUpdate};
use crate::store::completion::Completion;
use crate::store::health::StoreHealth;
use crate::store::pages::{PageRequest, UserFilter};

fn open(server: &RedisServer) -> (Arc<RedisStore>, tempfile::TempDir, Clock) {
    let [beat, fence, lease, call] = [200, 2000, 3000, 1000].map(Duration::from_millis);
    let timing = ClusterTiming::new(beat, fence, lease, call).unwrap();
    let url = server.url();
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start();
    let clock = process.clock.clone();
    let store = RedisStore::open(&RedisConfig { timing, ..config(&url) }, directory.path(), NodeId::new(77), process);
    (Arc::new(store.unwrap()), directory, clock)
}

fn wait_until_ready(store: &RedisStore) {
    for _ in 0..1000 {
        if matches!(smol::block_on(store.health()), StoreHealth::Ready) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{:?}", smol::block_on(store.health()));
}

#[test]
fn operator_is_told_that_the_store_is_full() {
    let Some(server) = RedisServer::start() else { return };
    let mut redis = server.client().get_connection().unwrap();
    let (store, _directory, _) = open(&server);
    store.set_notifier(Registry::new(store.node(), Clock::start()));
    wait_until_ready(&store);
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut redis).unwrap();
    let (completion, answer) = Completion::channel();
    let overrides = UserOverrides { ..UserOverrides::default() };
    store.update_user(UserId::parse("ada").unwrap(), UserUpdate::Set(overrides), completion);
    let answer = smol::block_on(smol::future::or(async { Some(answer.await) }, async {
        smol::Timer::after(Duration::from_secs(3)).await;
        None
    }));
    assert!(answer.is_some(), "no answer within 3 s, 15 beats: it is tried again and again");
}

#[test]
fn page_looks_at_a_bounded_number_of_users() {
    let Some(server) = RedisServer::start() else { return };
    let mut redis = server.client().get_connection().unwrap();
    let (store, _directory, _) = open(&server);
    store.set_notifier(Registry::new(store.node(), Clock::start()));
    wait_until_ready(&store);
    const USERS: usize = 300_000;
    let record = session_core::ledger::UserRecord::default();
    let bytes = value::record(session_core::cluster::Stamp(1), &record);
    for first in (0..USERS).step_by(1000) {
        let mut pipeline = redis::pipe();
        for number in first..first + 1000 {
            let user = UserId::parse(&format!("u{number:07}")).unwrap();
            let names = BucketNames::new("test", session_core::cluster::bucket_of(&user, 64));
            pipeline.cmd("HSET").arg(names.records()).arg(user.as_str()).arg(&bytes).ignore();
        }
        pipeline.exec(&mut redis).unwrap();
    }
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut redis).unwrap();
    let filter = UserFilter { prefix: "nobody".into(), ..UserFilter::default() };
    let start = std::time::Instant::now();
    let page = smol::block_on(store.list_users(filter, PageRequest::first(100))).unwrap();
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut redis).unwrap();
    let scans = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hscan:calls=")).unwrap();
    let scans: usize = scans.split(',').next().unwrap().parse().unwrap();
    assert!(page.next.is_some(), "after {:?}", start.elapsed());
    assert!(scans * 1000 <= 100_000, "one page looked at {} records", scans * 1000);
}

/// A client that the server is closing, and has not told so yet, as its socket takes nothing.
#[test]
fn client_whose_release_is_owed_is_not_served_after_the_fence() {
    let Some(server) = RedisServer::start() else { return };
    let mut redis = server.client().get_connection().unwrap();
    let (store, _directory, clock) = open(&server);
    let registry = Registry::new(store.node(), clock.clone());
    store.set_notifier(Arc::<Registry>::clone(&registry));
    wait_until_ready(&store);
    let store_client = client(&store, &registry, &clock);
    let mut guards = Vec::new();
    for user in ["ada", "bob"] {
        let registration = registry.register();
        let guard = admitted(&store_client, &registration, &UserId::parse(user).unwrap(), &clock);
        guards.push((registration, guard));
    }
    // The server closes ada's connection. The client is served until it has been told.
    let _cut_at = guards[0].1.leave();
    let release = StoreCommand::Release { user: UserId::parse("ada").unwrap(), session: guards[0].0.id() };
    guards[0].1.submit(release);
    assert!(!guards[0].1.is_gone() && guards[0].1.may_serve());
    // The store is away for longer than the fence.
    redis::cmd("DEBUG").arg("SLEEP").arg("2.5").exec(&mut redis).unwrap();
    assert!(!guards[1].1.may_serve(), "bob");
    assert!(!guards[0].1.may_serve(), "ada, whose release is owed");
}

/// As a task that was not running between its look at its mailbox and what it sends.
#[test]
fn fenced_session_is_not_served_under_the_next_id() {
    let Some(server) = RedisServer::start() else { return };
    let mut redis = server.client().get_connection().unwrap();
    let (store, _directory, clock) = open(&server);
    let registry = Registry::new(store.node(), clock.clone());
    store.set_notifier(Arc::<Registry>::clone(&registry));
    wait_until_ready(&store);
    let store_client = client(&store, &registry, &clock);
    let registration = registry.register();
    let user = UserId::parse("ada").unwrap();
    let guard = admitted(&store_client, &registration, &user, &clock);
    redis::cmd("DEBUG").arg("SLEEP").arg("2.5").exec(&mut redis).unwrap();
    assert!(!guard.may_serve(), "fenced");
    for _ in 0..500 {
        if store.may_serve(&user) {
            assert!(!guard.may_serve(), "it was fenced, and may be served again");
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the node does not join again");
}

fn client(store: &Arc<RedisStore>, registry: &Arc<Registry>, clock: &Clock) -> Arc<StoreClient> {
    let store: Arc<dyn Store> = Arc::<RedisStore>::clone(store);
    StoreClient::new(store, Arc::clone(registry), clock.clone(), Duration::from_secs(1), 9)
}

fn admitted(client: &Arc<StoreClient>, registration: &Registration, user: &UserId, clock: &Clock) -> SlotGuard {
    let mut guard = SlotGuard::new(Arc::clone(client), Arc::clone(registration.mailbox()), registration.id());
    let (user, session, at) = (user.clone(), registration.id(), clock.now());
    guard.submit(StoreCommand::Acquire { user, session, limit: None, at, options: None::<Box<AcquireOptions>> });
    let outcome = smol::block_on(std::future::poll_fn(|cx| registration.mailbox().poll(cx)));
    let crate::server::mailbox::Notification::Stored(outcome) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(outcome, Outcome::Granted { .. }), "{outcome:?}");
    assert!(guard.tell() && guard.answered(&outcome).is_none() && guard.may_serve());
    guard
}
