//! Servers are restarted one after another under load, while their clients come back by themselves.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use tests::balancer::Balancer;
use tests::test_process::{send_signal, wait_for_exit};

use super::{Duration, Instant, SECOND, Scene, measured};

const CLIENTS: usize = 12;

/// A client of the real binary, and what it has printed, with the time.
struct Held {
    process: Child,
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Held {
    fn start(url: &str, user: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_client-under-test"));
        command.args(["--url", url, "--user", user, "--reconnect"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (out, lines) = (process.stdout.take().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let of_thread = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                of_thread.lock().unwrap().push((Instant::now(), line));
            }
        });
        Self { process, lines }
    }

    fn count(&self, what: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|(_, line)| line.starts_with(what)).count()
    }

    /// The longest time from the end of a connection until the session goes on.
    fn longest_gap(&self) -> Duration {
        let lines = self.lines.lock().unwrap();
        let (mut longest, mut out_since) = (Duration::ZERO, None);
        for (at, line) in lines.iter() {
            if line.starts_with("CLOSED") || line.starts_with("SHUTTING_DOWN") {
                out_since = out_since.or(Some(*at));
            } else if line.starts_with("AUTHENTICATE_SUCCESS")
                && let Some(since) = out_since.take()
            {
                longest = longest.max(*at - since);
            }
        }
        longest
    }
}

/// Each user may have two sessions, and each of these clients has a user of its own, who has both: so nobody else could be admitted
/// to a slot that is lost for a moment, nor the client itself if its slot were not kept.
#[test]
fn clients_keep_their_slots_over_a_rolling_restart() {
    let Some(mut scene) = Scene::with_arguments(170, &["--linger", "20s"]) else { return };
    let balancer = Balancer::start().unwrap();
    let in_front = |scene: &Scene| balancer.set_servers(scene.fleet.addresses().into_iter().flatten().collect());
    in_front(&scene);
    let url = format!("ws://{}", balancer.address());
    let clients: Vec<_> = (0..2 * CLIENTS).map(|number| Held::start(&url, &format!("user {}", number / 2))).collect();
    let wait = |what: &str, is_so: &dyn Fn(&Held) -> bool| {
        let start = Instant::now();
        while !clients.iter().all(is_so) {
            if start.elapsed() > SECOND * 20 {
                let late = clients.iter().find(|client| !is_so(client)).unwrap();
                panic!("{what}: {:?}", late.lines.lock().unwrap());
            }
            thread::sleep(Duration::from_millis(10));
        }
    };
    wait("all are in", &|client| client.count("AUTHENTICATE_SUCCESS") == 1);
    scene.crowd.come_and_go();
    for server in 0..3 {
        scene.crowd.remark(&format!("server {server} is restarted"));
        scene.fleet.stop_server(server);
        in_front(&scene);
        scene.crowd.set_addresses(scene.fleet.addresses());
        scene.start_again(server);
        thread::sleep(SECOND);
        in_front(&scene);
        wait("all are in again", &|client| client.count("AUTHENTICATE_SUCCESS") > client.count("CLOSED"));
        scene.crowd.expect_no_offence();
    }
    let gaps = clients.iter().map(Held::longest_gap).max().unwrap();
    measured("the longest time that a client was without its session in a rolling restart", gaps);
    assert!(clients.iter().any(|client| client.count("CLOSED") > 0), "somebody was at a server that was restarted");
    for mut client in clients {
        assert_eq!(client.count("AUTHENTICATE_FAILURE"), 0, "{:?}", client.lines.lock().unwrap());
        send_signal(client.process.id(), Signal::INT);
        assert_eq!(wait_for_exit(&mut client.process).code(), Some(0));
    }
    // Slots of clients that hung up linger, so they are not counted here.
    scene.crowd.stay();
    scene.crowd.expect_no_offence();
}
