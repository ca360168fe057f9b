//! A Redis or Valkey of a test's own, as another process.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Cmd, IntoConnectionInfo as _, RedisResult, Value};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::programs;
use crate::test_process::{send_signal, wait_until_stopped};
use crate::waiting::{TIMEOUT, eventually};

/// A Redis keeps nothing with these arguments. Its replicas have its data soon.
pub const NOTHING_KEPT: [&str; 6] = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];

/// With these, a Redis has written a change to its disk before it answers.
pub const ALL_KEPT: [&str; 6] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];

/// A Redis process that listens on a port of its own of this machine. Killed when dropped.
pub struct RedisProcess {
    child: Option<Child>,
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    /// The text of its configuration file, if it needs one.
    configuration: Option<String>,
}

/// What a Redis finds when it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartWith {
    /// What it had written to its disk.
    ItsData,
    /// Nothing.
    NoData,
}

impl RedisProcess {
    /// The program: what the environment variable `REDIS_PROGRAM` names, or else `redis-server`, or `valkey-server` if only that is
    /// installed.
    #[must_use]
    pub fn program() -> String {
        env::var("REDIS_PROGRAM").unwrap_or_else(|_| {
            let is_installed = |program: &&str| programs::succeeds(Command::new(program).arg("--version"));
            ["redis-server", "valkey-server"].into_iter().find(is_installed).unwrap_or("redis-server").into()
        })
    }

    /// Whether it is installed. If not, as [`programs::is_installed`].
    #[must_use]
    pub fn is_installed() -> bool {
        let program = Self::program();
        programs::is_installed(&program, Command::new(&program).arg("--version"))
    }

    /// Starts one with these arguments, such as [`NOTHING_KEPT`], and waits until it answers.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(None, || arguments.iter().map(|argument| (*argument).to_owned()).collect())
    }

    /// Starts one with arguments that may name free ports, and perhaps a configuration file with this text. Waits until it
    /// answers.
    #[must_use]
    pub fn start_with(configuration: Option<String>, arguments: impl Fn() -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut redis = Self { child: None, port: 0, directory, arguments: Vec::new(), configuration };
        // Another process may take a free port first.
        let has_started = (0..5).any(|_| {
            redis.port = free_port();
            redis.arguments = arguments();
            redis.spawn(&[], Self::answers)
        });
        assert!(has_started, "{} does not start", Self::program());
        redis
    }

    /// Starts a replica of this one, and waits until it has all data.
    #[must_use]
    pub fn start_replica(&self, arguments: &[&str]) -> Self {
        let replica = Self::start(arguments);
        replica.follow(self);
        replica
    }

    /// Makes it a replica of another one, and waits until it has all data.
    pub fn follow(&self, primary: &Self) {
        self.command(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        self.wait_until_follows(primary);
    }

    /// Waits until it is a replica of this one and has all data.
    pub fn wait_until_follows(&self, primary: &Self) {
        eventually("the replica has all data", || {
            self.info("replication", "role") == "slave"
                && self.info("replication", "master_port") == primary.port.to_string()
                && self.info("replication", "master_link_status") == "up"
        });
    }

    /// Whether it takes writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.info("replication", "role") == "master"
    }

    /// The port on which it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Runs a command on a connection of its own.
    ///
    /// # Errors
    /// If it cannot be reached, or answers with an error.
    pub fn try_command(&self, words: &[&str]) -> RedisResult<Value> {
        let info = self.url().into_connection_info()?;
        // A test counts the errors, and before Redis 7.2 CLIENT SETINFO is one.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let client = Client::open(info.set_redis_settings(settings))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        let mut command = Cmd::new();
        command.arg(words);
        command.query(&mut connection)
    }

    /// As [`RedisProcess::try_command`], for a command that succeeds.
    pub fn command(&self, words: &[&str]) -> Value {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// How often clients have sent this command.
    ///
    /// # Panics
    /// If the answer is not that of a Redis.
    #[must_use]
    pub fn command_calls(&self, command: &str) -> u64 {
        let calls = self.info("commandstats", &format!("cmdstat_{command}"));
        let calls = calls.split(',').find_map(|part| part.strip_prefix("calls="));
        calls.map_or(0, |calls| calls.parse().expect("a number of calls"))
    }

    /// Loads a script. Returns how it is called.
    ///
    /// # Panics
    /// If it is not valid.
    #[must_use]
    pub fn load_script(&self, source: &str) -> String {
        redis::from_redis_value(self.command(&["SCRIPT", "LOAD", source])).expect("its hash is text")
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it was killed.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// A field of a section of INFO.
    #[must_use]
    pub fn info(&self, section: &str, field: &str) -> String {
        let text: String = redis::from_redis_value(self.command(&["INFO", section])).expect("INFO is text");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
    }

    /// Ends it with SIGKILL and waits until it has ended.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours to kill");
        child.wait().expect("it was killed");
    }

    /// Starts it again on the same port, after [`RedisProcess::kill`], and waits until it answers.
    pub fn start_again(&mut self, with: RestartWith) {
        assert!(self.child.is_none(), "it still runs");
        if with == RestartWith::NoData {
            self.directory = tempfile::tempdir().expect("a directory");
        }
        assert!(self.spawn(&[], Self::answers), "it does not start again");
    }

    /// Writes its data to its disk, kills it and starts it again. It says that it is loading, until [`RedisProcess::finish_loading`].
    pub fn restart_loading(&mut self) {
        // It pauses for 10 ms after each key, and answers after each KiB: for 30 s.
        self.command(&["EVAL", "for i = 1, 3000 do redis.call('SET', 'other:' .. i, string.rep('x', 1024)) end", "0"]);
        self.command(&["CONFIG", "SET", "rdbcompression", "no"]);
        self.command(&["SAVE"]);
        self.kill();
        let slowly = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"];
        assert!(self.spawn(&slowly, Self::is_loading), "it does not start again");
    }

    /// Whether it says that it still reads its data.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.try_command(&["PING"]).is_err_and(|error| error.code() == Some("LOADING"))
    }

    /// It reads the rest of its data without a pause. Waits until it has.
    pub fn finish_loading(&self) {
        self.command(&["CONFIG", "SET", "key-load-delay", "0"]);
        eventually("it has read its data", || self.answers());
    }

    fn answers(&self) -> bool {
        self.try_command(&["PING"]).is_ok()
    }

    /// Kills it and starts it again. How long it did not answer.
    pub fn restart(&mut self, with: RestartWith) -> Duration {
        let start = Instant::now();
        self.kill();
        self.start_again(with);
        start.elapsed()
    }

    /// Stops it with SIGSTOP, and waits until it has stopped. Its connections stay open, and nobody answers on them.
    pub fn pause(&self) {
        send_signal(self.id(), Signal::STOP);
        wait_until_stopped(self.id());
    }

    /// Lets it go on with SIGCONT.
    pub fn resume(&self) {
        send_signal(self.id(), Signal::CONT);
    }

    /// Starts the process, with more arguments for this time, and waits until this is so. False if it ends before.
    fn spawn(&mut self, more: &[&str], is_so: fn(&Self) -> bool) -> bool {
        let mut command = Command::new(Self::program());
        if let Some(text) = &self.configuration {
            let file = self.directory.path().join("redis.conf");
            fs::write(&file, text).expect("a file in a directory of its own");
            command.arg(file);
        }
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"]).arg(self.directory.path());
        command.args(&self.arguments).args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.child.insert(command.spawn().expect("the program starts"));
        let start = Instant::now();
        let id = child.id();
        loop {
            if self.child.as_mut().expect("it was started").try_wait().expect("it is our child").is_some() {
                return false;
            }
            // Another one may listen on the port, and this one be about to end.
            if is_so(self) && self.info("server", "process_id") == id.to_string() {
                return true;
            }
            assert!(start.elapsed() < TIMEOUT, "the Redis on port {} does not answer", self.port);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::{ALL_KEPT, NOTHING_KEPT, RedisProcess, RestartWith, Value};

    fn get(redis: &RedisProcess) -> Option<String> {
        redis::from_redis_value(redis.command(&["GET", "key"])).unwrap()
    }

    #[test]
    fn redis_restarts_with_its_data_or_without() {
        if !RedisProcess::is_installed() {
            return;
        }
        for (arguments, with, kept) in [
            (ALL_KEPT.as_slice(), RestartWith::ItsData, Some("value")),
            (&ALL_KEPT, RestartWith::NoData, None),
            (&NOTHING_KEPT, RestartWith::ItsData, None),
        ] {
            let mut redis = RedisProcess::start(arguments);
            redis.command(&["SET", "key", "value"]);
            assert_eq!(get(&redis).as_deref(), Some("value"));
            let (port, history) = (redis.port, redis.info("replication", "master_replid"));
            redis.restart(with);
            assert_eq!((redis.port, get(&redis).as_deref()), (port, kept), "{with:?}");
            assert_ne!(redis.info("replication", "master_replid"), history, "a restart begins another history");
        }
    }

    #[test]
    fn redis_says_that_it_is_loading() {
        if !RedisProcess::is_installed() {
            return;
        }
        let mut redis = RedisProcess::start(&NOTHING_KEPT);
        redis.command(&["SET", "key", "value"]);
        redis.restart_loading();
        assert!(redis.is_loading());
        redis.finish_loading();
        assert!(!redis.is_loading());
        assert_eq!(get(&redis).as_deref(), Some("value"));
    }

    #[test]
    fn paused_redis_answers_when_it_goes_on() {
        if !RedisProcess::is_installed() {
            return;
        }
        let redis = RedisProcess::start(&NOTHING_KEPT);
        redis.pause();
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| redis.command(&["PING"]));
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!answer.is_finished());
            redis.resume();
            assert_eq!(answer.join().unwrap(), Value::SimpleString("PONG".into()));
        });
    }
}
