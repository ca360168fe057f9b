//! Several server processes that share one Redis.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::redis_process::{NOTHING_KEPT, RedisProcess};
use crate::redis_trace::Tape;
use crate::tcp_proxy::TcpProxy;
use crate::test_process::{TestProcess, send_signal, wait_until_stopped, without_connection_limits};

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// The number of servers.
    pub servers: usize,
    /// More arguments of each server.
    pub arguments: Vec<&'static str>,
    /// More arguments of single servers, by their numbers.
    pub own_arguments: Vec<(usize, &'static str)>,
    /// The arguments of the Redis.
    pub redis: Vec<&'static str>,
    /// The pause between two beats of a server.
    pub beat: Duration,
    /// After so long without a beat, a server closes its sessions.
    pub fence: Duration,
    /// After so long without a beat, the others free its slots.
    pub lease: Duration,
    /// The time limit of a call to the Redis.
    pub call: Duration,
    /// Whether each server reaches the Redis through a [`TcpProxy`].
    pub proxies: bool,
}

impl FleetOptions {
    /// Three servers with short times and these arguments, and a Redis that keeps nothing.
    #[must_use]
    pub fn new(arguments: &[&'static str]) -> Self {
        Self {
            servers: 3,
            arguments: arguments.to_vec(),
            own_arguments: Vec::new(),
            redis: NOTHING_KEPT.to_vec(),
            beat: Duration::from_millis(200),
            fence: Duration::from_secs(2),
            lease: Duration::from_secs(3),
            call: Duration::from_secs(1),
            proxies: false,
        }
    }

    /// Sessions go on if the Redis does not answer for so long: F − 2R − the time limit of a call.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        self.fence.saturating_sub(self.beat * 2 + self.call)
    }

    /// All slots that nobody has are free within this time, once all is mended: L, some beats, and what a busy machine takes.
    #[must_use]
    pub fn mended_within(&self) -> Duration {
        self.lease + self.beat * 5 + Duration::from_secs(2)
    }
}

/// A Redis, or several that are one store.
pub trait SharedStore {
    /// The arguments that tell a server where the store is.
    fn arguments(&self, server: usize) -> Vec<String>;
}

impl SharedStore for RedisProcess {
    fn arguments(&self, _: usize) -> Vec<String> {
        vec!["--redis-url".into(), self.url()]
    }
}

/// Servers that share one Redis. All end when this is dropped. If the test fails, the ends of their logs are printed.
pub struct Fleet<R = RedisProcess> {
    servers: Vec<FleetServer>,
    /// The Redis.
    pub redis: R,
    options: FleetOptions,
    binary: &'static str,
    _directory: TempDir,
}

struct FleetServer {
    process: Option<TestProcess>,
    data: PathBuf,
    log: PathBuf,
    proxy: Option<TcpProxy>,
}

impl Fleet {
    /// Starts the Redis, and servers with this binary, and waits until all listen.
    #[must_use]
    pub fn start(binary: &'static str, options: &FleetOptions) -> Self {
        let redis = RedisProcess::start(&options.redis);
        let target = redis.address();
        Self::start_servers(binary, options, redis, || options.proxies.then(|| TcpProxy::start(target)))
    }
}

impl<R: SharedStore> Fleet<R> {
    /// Starts servers with this binary that share this store, and waits until all listen.
    #[must_use]
    pub fn start_on(binary: &'static str, options: &FleetOptions, redis: R) -> Self {
        Self::start_servers(binary, options, redis, || None)
    }

    /// As [`Fleet::start_on`]. Each server reaches the Redis at this address through a proxy.
    #[must_use]
    pub fn start_behind_proxies(binary: &'static str, options: &FleetOptions, redis: R, target: SocketAddr) -> Self {
        Self::start_servers(binary, options, redis, || Some(TcpProxy::start(target)))
    }

    /// As [`Fleet::start_behind_proxies`]. What the servers and the Redis say to each other is recorded.
    #[must_use]
    pub fn start_recorded(
        binary: &'static str,
        options: &FleetOptions,
        redis: R,
        target: SocketAddr,
        tape: &Arc<Tape>,
    ) -> Self {
        Self::start_servers(binary, options, redis, || Some(TcpProxy::start_recorded(target, Arc::clone(tape))))
    }

    fn start_servers(
        binary: &'static str,
        options: &FleetOptions,
        redis: R,
        proxy: impl Fn() -> Option<TcpProxy>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let servers = (0..options.servers).map(|index| FleetServer {
            process: None,
            data: directory.path().join(format!("server {index}")),
            log: directory.path().join(format!("log {index}")),
            proxy: proxy(),
        });
        let servers = servers.collect();
        let mut fleet = Self { servers, redis, options: options.clone(), binary, _directory: directory };
        (0..options.servers).for_each(|index| fleet.start_server(index));
        fleet
    }

    /// Where the servers listen that run.
    #[must_use]
    pub fn addresses(&self) -> Vec<Option<SocketAddr>> {
        self.servers.iter().map(|server| server.process.as_ref().map(|process| process.address)).collect()
    }

    /// What a server has logged: warnings and errors.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(&self.servers[index].log).expect("it was started")
    }

    /// The data directory of a server, for operator commands.
    #[must_use]
    pub fn data(&self, index: usize) -> &Path {
        &self.servers[index].data
    }

    /// The network between a server and the Redis.
    #[must_use]
    pub fn proxy(&self, index: usize) -> &TcpProxy {
        self.servers[index].proxy.as_ref().expect("the options ask for proxies")
    }

    /// The networks between all servers and the Redis.
    pub fn proxies(&self) -> impl Iterator<Item = &TcpProxy> {
        self.servers.iter().filter_map(|server| server.proxy.as_ref())
    }

    /// Starts a server that does not run, with its data directory as it is, and waits until it listens.
    pub fn start_server(&mut self, index: usize) {
        let options = &self.options;
        let server = &mut self.servers[index];
        let mut command = without_connection_limits(self.binary);
        let log = File::options().create(true).append(true).open(&server.log).expect("a file in a new directory");
        command.stderr(log).args(["--store", "redis", "--redis-prefix", "test"]);
        match &server.proxy {
            Some(proxy) => command.arg("--redis-url").arg(format!("redis://{}", proxy.address())),
            None => command.args(self.redis.arguments(index)),
        };
        command.env("SESSIONS_NODE_NAME", format!("server-{index}"));
        command.args(options.own_arguments.iter().filter(|(of, _)| *of == index).map(|(_, argument)| argument));
        for (name, time) in [
            ("--node-beat", options.beat),
            ("--node-fence", options.fence),
            ("--node-lease", options.lease),
            ("--store-timeout", options.call),
        ] {
            command.arg(name).arg(format!("{}ms", time.as_millis()));
        }
        server.process = Some(TestProcess::run(command, &server.data, &options.arguments));
    }

    /// Ends a server with SIGKILL.
    pub fn kill_server(&mut self, index: usize) {
        self.take(index).kill();
    }

    /// Ends a server with SIGTERM, and waits until it has ended. Its clients have to answer its close frames.
    pub fn stop_server(&mut self, index: usize) {
        let mut process = self.take(index);
        send_signal(process.id(), Signal::TERM);
        let status = process.wait();
        assert!(status.success(), "server {index} stops: {status}");
    }

    /// Stops a server with SIGSTOP, and waits until it has stopped.
    pub fn pause_server(&self, index: usize) {
        send_signal(self.id(index), Signal::STOP);
        wait_until_stopped(self.id(index));
    }

    /// Lets a server go on with SIGCONT.
    pub fn resume_server(&self, index: usize) {
        send_signal(self.id(index), Signal::CONT);
    }

    /// Has a server load its configuration again, with SIGHUP.
    pub fn reload_server(&self, index: usize) {
        send_signal(self.id(index), Signal::HUP);
    }

    /// Whether every server that runs says that it admits.
    #[must_use]
    pub fn are_healthy(&self) -> bool {
        self.servers.iter().filter_map(|server| server.process.as_ref()).all(|process| process.health() == 200)
    }

    /// The process id of a server that runs.
    #[must_use]
    pub fn id(&self, index: usize) -> u32 {
        self.servers[index].process.as_ref().expect("it runs").id()
    }

    fn take(&mut self, index: usize) -> TestProcess {
        self.servers[index].process.take().expect("it runs")
    }
}

impl<R> Drop for Fleet<R> {
    #[allow(clippy::print_stderr, reason = "it explains why a test failed")]
    fn drop(&mut self) {
        if thread::panicking() {
            for (index, server) in self.servers.iter().enumerate() {
                let log = fs::read_to_string(&server.log).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                let last = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
                eprintln!("the end of the log of server {index}:\n{}", last.join("\n"));
            }
        }
    }
}
