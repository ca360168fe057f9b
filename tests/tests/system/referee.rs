//! The referee of `shared_store`: it finds an overrun, and finds none where there is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tests::crowd::Crowd;
use tests::referee::Status;
use tests::test_process::TestProcess;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const SECOND: Duration = Duration::from_secs(1);

/// Servers that do not know each other.
fn servers(number: usize, arguments: &[&str]) -> (tempfile::TempDir, Vec<TestProcess>, Vec<Option<SocketAddr>>) {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [&["--store", "memory", "--limit", "2"], arguments].concat();
    let start = |number| TestProcess::start(SERVER, &directory.path().join(format!("{number}")), &arguments);
    let servers: Vec<_> = (0..number).map(start).collect();
    let addresses = servers.iter().map(|server| Some(server.address)).collect();
    (directory, servers, addresses)
}

#[test]
fn referee_finds_servers_that_overrun_a_limit() {
    let (_directory, _servers, addresses) = servers(2, &[]);
    let crowd = Crowd::new(1, 2, &["ada"], addresses);
    for server in [0, 1] {
        let id = crowd.connect(server, "ada").unwrap();
        assert!(matches!(crowd.answer(id, SECOND), Status::In(_)));
    }
    crowd.expect_no_offence();
    let third = crowd.connect(1, "ada").unwrap();
    let eve = crowd.connect(1, "eve").unwrap();
    thread::sleep(Duration::from_millis(300));
    let (story, most) = crowd.referee(|referee| (referee.offence().map(ToOwned::to_owned), referee.most().clone()));
    assert!(
        story.as_ref().is_some_and(|story| story.starts_with("3 clients of ada are in, with a limit of 2")),
        "{story:?}"
    );
    let last = format!(r#"client {third} of ada at server 1 reads Text("{{"type":"AUTHENTICATE_SUCCESS""#);
    assert!(story.unwrap().contains(&last));
    assert_eq!((most.get("ada"), most.get("eve")), (Some(&3), Some(&1)), "{eve}");
}

#[test]
fn referee_finds_a_crowd_that_overruns_a_limit() {
    let (_directory, _servers, addresses) = servers(2, &[]);
    let crowd = Crowd::new(2, 2, &["ada", "bob"], addresses);
    crowd.come_and_go();
    thread::sleep(SECOND);
    assert!(crowd.referee(|referee| referee.offence().is_some()));
}

#[test]
fn referee_finds_no_overrun_at_one_server() {
    for arguments in [["--when-full", "deny"], ["--when-full", "evict-oldest"]] {
        let (_directory, _servers, addresses) = servers(1, &arguments);
        let crowd = Crowd::new(3, 2, &["ada", "bob", "eve"], addresses);
        crowd.come_and_go();
        thread::sleep(SECOND * 3);
        crowd.stay();
        assert!(crowd.referee(|referee| referee.admitted()) > 20);
        let held = crowd.who_is_in();
        assert!(!held.is_empty());
        crowd.expect_alive(&held);
        crowd.expect_all_slots_free(SECOND * 2);
    }
}

#[test]
fn stopped_server_must_close_before_it_speaks() {
    let (_directory, mut servers, addresses) = servers(1, &[]);
    let crowd = Crowd::new(4, 2, &["ada"], addresses);
    let first = crowd.connect_until_in(0, "ada", SECOND);
    // It did not stop, and so says more.
    crowd.referee(|referee| referee.server_stops(0));
    assert_eq!(crowd.referee(|referee| referee.count("ada")), 0);
    crowd.referee(|referee| referee.server_goes_on(0));
    crowd.expect_no_offence();
    crowd.referee(|referee| referee.send(first, r#"{"type":"PING"}"#));
    thread::sleep(Duration::from_millis(200));
    let story = crowd.referee(|referee| referee.offence().map(ToOwned::to_owned)).unwrap();
    assert!(story.contains("by a server that had to close it"), "{story}");

    // One that ends says no more.
    let crowd = Crowd::new(5, 2, &["ada"], vec![Some(servers[0].address)]);
    let second = crowd.connect_until_in(0, "bob", SECOND);
    crowd.referee(|referee| {
        referee.server_stops(0);
        referee.server_goes_on(0);
    });
    servers[0].kill();
    crowd.wait_until("it has the end", SECOND, |referee| referee.client(second).unwrap().is_out());
    crowd.expect_no_offence();
}

/// A server that says what the test tells it. The test has the connections, in the order in which they came.
struct Script {
    address: SocketAddr,
    connections: Receiver<TcpStream>,
}

impl Script {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().map(Result::unwrap) {
                stream.set_nodelay(true).unwrap();
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
                say(&stream, "HELLO");
                if sender.send(stream).is_err() {
                    break;
                }
            }
        });
        Self { address, connections }
    }

    /// A client of this crowd that has authenticated.
    fn connect(&self, crowd: &Crowd) -> TcpStream {
        let id = crowd.connect(0, "ada").unwrap();
        let stream = self.connections.recv_timeout(SECOND).unwrap();
        crowd.wait_until("it has asked", SECOND, |referee| referee.client(id).unwrap().status == Status::Asked);
        stream
    }

    /// A client of this crowd that is told that it is in.
    fn admit(&self, crowd: &Crowd) -> TcpStream {
        let stream = self.connect(crowd);
        say(&stream, "AUTHENTICATE_SUCCESS");
        stream
    }
}

fn say(mut stream: &TcpStream, kind: &str) {
    let text = format!(r#"{{"type":"{kind}"}}"#);
    stream.write_all(&[&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()).unwrap();
}

#[test]
fn referee_takes_the_order_from_what_was_sent() {
    let script = Script::start();
    let crowd = Crowd::new(7, 1, &["ada"], vec![Some(script.address)]);
    let mut held = script.admit(&crowd);
    for round in 0..20 {
        // The referee reads nothing in the meantime.
        let newcomer = script.connect(&crowd);
        crowd.referee(|_| {
            if round % 2 == 0 {
                say(&held, "EVICTED");
            } else {
                held.shutdown(Shutdown::Both).unwrap();
            }
            say(&newcomer, "AUTHENTICATE_SUCCESS");
        });
        thread::sleep(Duration::from_millis(10));
        held = newcomer;
    }
    crowd.expect_no_offence();
    assert_eq!(crowd.referee(|referee| (referee.admitted(), referee.brief(), referee.most()["ada"])), (21, 0, 1));

    // The other way round.
    let newcomer = script.admit(&crowd);
    thread::sleep(Duration::from_millis(50));
    say(&held, "EVICTED");
    drop(newcomer);
    let story = crowd.referee(|referee| referee.offence().map(ToOwned::to_owned)).unwrap();
    assert!(story.starts_with("2 clients of ada are in, with a limit of 1"), "{story}");
}

#[test]
fn server_that_does_not_listen_admits_nobody() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let crowd = Crowd::new(6, 2, &["ada"], vec![Some(address), None]);
    assert_eq!((crowd.connect(0, "ada"), crowd.connect(1, "ada")), (None, None));
    crowd.come_and_go();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(crowd.referee(|referee| referee.admitted()), 0);
    crowd.expect_no_offence();
}
