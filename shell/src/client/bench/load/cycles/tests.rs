use super::*;

use std::net::TcpListener;

use futures_rustls::rustls::HandshakeKind;
use smol::Timer;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::Counts;
use crate::client::testing::fake_server::{FakeServer, with_server};
use crate::client::testing::test_ca::TestCa;

const YEARS: [i32; 2] = [2000, 2200];

fn load(url: &Url, profile: LoadProfile, millis: u64) -> CycleLoad {
    CycleLoad {
        url: url.clone(),
        root_certificates: RootCertificates::SYSTEM,
        resumes_tls: false,
        users: Users(10),
        profile,
        max_concurrent: MAX_CONCURRENT,
        duration: Duration::from_millis(millis),
        threads: 1,
    }
}

async fn counts(load: &CycleLoad) -> Counts {
    let stats = Arc::default();
    load.run(&stats).await;
    stats.counts()
}

/// The counts of a load that waits only a moment for a server which does not answer.
async fn impatient_counts(load: &CycleLoad) -> Counts {
    let stats = Arc::default();
    load.run_with_grace(std::future::pending(), Duration::from_millis(50), &stats).await;
    stats.counts()
}

/// The failures of cycles with a server that does this on each connection, one after another.
fn failures(serve: &impl AsyncFn(&FakeServer)) -> Vec<String> {
    let mut failures = Vec::new();
    with_server(async |listener: FakeServer| {
        let load = load(&listener.url(), LoadProfile::Concurrency(1), 100);
        let server = async {
            loop {
                serve(&listener).await;
            }
        };
        let counts = or(counts(&load), server).await;
        assert_eq!((counts.cycles, counts.under_way()), (0, 0), "{:?}", counts.failures);
        failures = counts.failures.into_keys().collect();
    });
    failures
}

#[test]
fn closed_loop_counts_grants_and_refusals() {
    for (threads, at_once, limit) in [(1, 4, 0), (1, 4, 1000), (3, 4, 1000), (8, 2, 1000)] {
        with_server(async |listener: FakeServer| {
            let load = CycleLoad { threads, ..load(&listener.url(), LoadProfile::Concurrency(at_once), 200) };
            let counts = or(counts(&load), listener.serve(limit)).await;
            assert!(counts.cycles >= u64::from(at_once) && counts.failures.is_empty(), "{:?}", counts.failures);
            assert_eq!(counts.refused, if limit == 0 { counts.cycles } else { 0 });
            let [begun, ended] = [counts.begun, counts.cycles];
            assert_eq!((begun, counts.sign_in.len(), counts.cycle.len()), (ended, ended, ended));
            assert_eq!((counts.late.len(), counts.not_begun), (0, 0));
        });
    }
}

#[test]
fn open_loop_begins_every_cycle_that_is_due() {
    for threads in [1, 3] {
        with_server(async |listener: FakeServer| {
            let load = CycleLoad { threads, ..load(&listener.url(), LoadProfile::Rate(200.0), 250) };
            let counts = or(counts(&load), listener.serve(1000)).await;
            assert_eq!((counts.begun, counts.cycles, counts.late.len(), counts.not_begun), (50, 50, 50, 0));
        });
    }
}

#[test]
fn open_loop_does_not_wait_for_a_server_that_stalls() {
    with_server(async |listener: FakeServer| {
        let load = CycleLoad { max_concurrent: 5, ..load(&listener.url(), LoadProfile::Rate(200.0), 100) };
        let counts = impatient_counts(&load).await;
        assert_eq!((counts.begun, counts.not_begun), (5, 15));
        assert_eq!(
            counts.failures.into_iter().collect::<Vec<_>>(),
            [("no answer within 10 seconds of the end".into(), 5)]
        );
    });
}

#[test]
fn open_loop_latency_counts_from_the_scheduled_time() {
    /// What the server takes for its HELLO. The time to authenticate is long over then.
    const PAUSE: Duration = Duration::from_millis(200);

    with_server(async |listener: FakeServer| {
        let load = load(&listener.url(), LoadProfile::Rate(1.0), 10);
        let stats = Arc::default();
        let server = async {
            Timer::after(PAUSE).await;
            listener.serve(1).await
        };
        or(load.run(&stats), server).await;
        let counts = stats.counts();
        assert_eq!(counts.cycles, 1, "{:?}", counts.failures);
        let least = (PAUSE - super::super::CONNECT_LEAD).as_nanos();
        assert!(u128::from(counts.sign_in.max()) > least * 9 / 10, "{}", counts.sign_in.max());
        assert!(u128::from(counts.cycle.max()) > PAUSE.as_nanos() * 9 / 10, "{}", counts.cycle.max());
        // The load itself was not late.
        assert!(counts.late.max() < counts.sign_in.max(), "{}", counts.late.max());
    });
}

#[test]
fn cycles_are_the_same_over_tls() {
    let ca = TestCa::new();
    for resumes_tls in [false, true] {
        with_server(async |listener: FakeServer| {
            let listener = listener.with_tls(ca.acceptor(&["127.0.0.1"], YEARS));
            let root_certificates = ca.root_certificates();
            let load = load(&listener.url(), LoadProfile::Concurrency(2), 300);
            let load = CycleLoad { resumes_tls, root_certificates, ..load };
            let counts = or(counts(&load), listener.serve(2)).await;
            assert!(counts.cycles >= 2 && counts.failures.is_empty(), "{:?}", counts.failures);
            assert_eq!(counts.resumed > 0, resumes_tls, "{:?}", counts.failures);
        });
    }
}

#[test]
fn tls_sessions_are_resumed_only_if_asked_to() {
    let ca = TestCa::new();
    for resumes_tls in [false, true] {
        with_server(async |listener: FakeServer| {
            let tls = ca.acceptor(&["127.0.0.1"], YEARS);
            let url: Url = format!("wss://127.0.0.1:{}", listener.port()).parse().expect("a good URL");
            let load = load(&url, LoadProfile::Concurrency(1), 10_000);
            let load = CycleLoad { resumes_tls, root_certificates: ca.root_certificates(), ..load };
            let server = async {
                for number in 0..2 {
                    let mut stream = tls.accept(listener.accept_tcp().await).await.expect("trust");
                    let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                    assert_eq!(is_resumed, resumes_tls && number > 0);
                    // The client reads the tickets with the answer.
                    stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await.expect("a reader");
                    let _request: usize = stream.read(&mut [0; 1024]).await.expect("a request");
                    drop(stream.close().await);
                }
            };
            let run = async {
                load.run(&Arc::default()).await;
            };
            or(run, server).await;
        });
    }
}

#[test]
fn untrusted_server_fails_every_cycle() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    with_server(async |listener: FakeServer| {
        let listener = listener.with_tls(ca.acceptor(&["127.0.0.1"], YEARS));
        let load = load(&listener.url(), LoadProfile::Concurrency(1), 100);
        let load = CycleLoad { root_certificates: other.root_certificates(), ..load };
        let server = async {
            loop {
                assert!(listener.accept_stream().await.is_none());
            }
        };
        let counts = or(counts(&load), server).await;
        let failures: Vec<_> = counts.failures.into_keys().collect();
        assert!(failures.len() == 1 && failures[0].contains("its certificate is not trusted"), "{failures:?}");
    });
}

#[test]
fn bad_servers_are_failures_and_never_hang() {
    for (answer, expected) in [
        (&[][..], "it hung up before it answered"),
        (&["HTTP/1.1 101 Switch"], "its answer is too long, or breaks off"),
        (&["220 mail.example ESMTP\r\n"], "check that the URL is that of a session server"),
        (
            &["HTTP/1.1 503 No\r\nContent-Length: 18\r\n\r\n", "{\"message\":\"Full\"}"],
            "503 Service Unavailable: \"Full\"",
        ),
    ] {
        let failures = failures(&async |listener: &FakeServer| listener.answer(answer).await);
        assert!(failures.len() == 1 && failures[0].contains(expected), "{expected}: {failures:?}");
    }
    let failures = failures(&async |listener: &FakeServer| drop(listener.accept().await));
    assert_eq!(failures, ["the connection is lost: the server went away without a word; connect again"]);
}

#[test]
fn unanswered_cycle_is_a_failure() {
    with_server(async |listener: FakeServer| {
        // The kernel accepts the connection, and nobody reads from it.
        let counts = impatient_counts(&load(&listener.url(), LoadProfile::Concurrency(3), 50)).await;
        assert_eq!(counts.failures.into_values().collect::<Vec<_>>(), [3]);
    });
}

#[test]
fn unreachable_server_is_tried_again_after_a_pause() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url: Url = format!("ws://{}", free.local_addr().expect("an address")).parse().expect("a good URL");
    drop(free);
    let counts = smol::block_on(counts(&load(&url, LoadProfile::Concurrency(1), 950)));
    let failures: Vec<_> = counts.failures.iter().collect();
    assert!(failures.len() == 1 && failures[0].0.starts_with(&format!("cannot reach {url}: ")), "{failures:?}");
    assert!(counts.begun > 1 && counts.begun <= 10, "{}", counts.begun);
}

#[test]
fn next_address_is_tried() {
    with_server(async |listener: FakeServer| {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let closed = free.local_addr().expect("an address");
        drop(free);
        let load = load(&listener.url(), LoadProfile::Concurrency(2), 100);
        let stats = Arc::default();
        let (mut task, _control) = load.tasks(GRACE, &stats).await.expect("a task").remove(0);
        task.addresses = [closed, task.addresses[0]].into();
        let run = smol::unblock(move || Engine::new(task).and_then(|mut engine| engine.run()));
        or(run, listener.serve(2)).await.expect("an engine");
        let counts = stats.counts();
        assert!(counts.cycles >= 2 && counts.failures.is_empty(), "{:?}", counts.failures);
    });
}

#[test]
fn stopped_load_waits_for_its_cycles() {
    with_server(async |listener: FakeServer| {
        let load = load(&listener.url(), LoadProfile::Concurrency(4), 3_600_000);
        let stats = Arc::default();
        let stop = async {
            Timer::after(Duration::from_millis(50)).await;
        };
        or(load.run_until(stop, &stats), listener.serve(4)).await;
        let counts = stats.counts();
        assert!(counts.cycles >= 4 && counts.cycles == counts.begun, "{:?}", counts.failures);
    });
}

#[test]
fn dropped_load_closes_its_sockets() {
    with_server(async |listener: FakeServer| {
        let load = load(&listener.url(), LoadProfile::Concurrency(1), 3_600_000);
        let stats = Arc::default();
        let accepted = or(
            async {
                load.run(&stats).await;
                unreachable!("it runs for an hour")
            },
            listener.accept_tcp(),
        );
        let mut stream = accepted.await;
        let mut request = Vec::new();
        let read: usize = stream.read_to_end(&mut request).await.expect("an end");
        assert!(read > 0);
    });
}
