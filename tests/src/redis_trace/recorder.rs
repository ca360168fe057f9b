//! Records a run: starts MONITOR with each Redis process, and puts marks into it.

use std::sync::Arc;

use redis::{Client, Value};

use super::monitor::Monitor;
use super::tape::Tape;
use super::trace::{Beginning, Life, Trace};
use crate::fleet::Fleet;
use crate::redis_process::{RedisProcess, RestartWith};
use crate::tcp_proxy::TcpProxy;
use crate::waiting::eventually;

/// Its words tell the replay that the Redis saves what it has at this point.
pub(super) const SAVED: [&[u8]; 2] = [b"ECHO", b"the state is saved"];

/// Returns everything that a replay compares: each hash and each set, with all that is in it.
pub(super) const SNAPSHOT: &str = "local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' or kind == 'set' then
    all[#all + 1] = key
    all[#all + 1] = redis.call(kind == 'hash' and 'HGETALL' or 'SMEMBERS', key)
  end
end
return all";

/// Records what the proxies of a fleet pass on, and in which order the Redis applies it.
pub struct Recorder {
    tape: Arc<Tape>,
    /// What the recorder itself sends goes through this, and so is on the tape.
    proxy: TcpProxy,
    monitor: Monitor,
    lives: Vec<Life>,
}

impl Recorder {
    /// Begins, before any server has connected to this Redis, which is empty.
    #[must_use]
    pub fn start(redis: &RedisProcess) -> Self {
        let tape = Arc::<Tape>::default();
        let proxy = TcpProxy::start_recorded(redis.address(), Arc::clone(&tape));
        let monitor = Monitor::start(redis.address());
        let mut recorder = Self { tape, proxy, monitor, lives: Vec::new() };
        recorder.begin(redis, Beginning::Nothing);
        recorder
    }

    /// The tape, for the proxies.
    #[must_use]
    pub const fn tape(&self) -> &Arc<Tape> {
        &self.tape
    }

    /// The Redis saves what it has.
    pub fn save(&self) {
        let mut commands = redis::pipe();
        // One after the other: the Redis applies what it has read from a connection before it turns to the next one.
        commands.add_command(SAVED.iter().fold(redis::Cmd::new(), |mut command, word| {
            command.arg(*word);
            command
        }));
        commands.cmd("SAVE");
        commands.exec(&mut self.connect()).expect("the Redis saves");
    }

    /// The Redis tells everything that it has, for the replay to compare.
    pub fn snapshot(&self) {
        let mut command = redis::cmd("EVAL");
        let _state: Value = command.arg(SNAPSHOT).arg(0).query(&mut self.connect()).expect("the script runs");
    }

    /// Kills the Redis of this fleet and starts it again. No server reaches it before MONITOR does.
    pub fn restart(&mut self, fleet: &mut Fleet, with: RestartWith) {
        fleet.redis.kill();
        fleet.proxies().for_each(TcpProxy::cut);
        self.proxy.cut();
        fleet.redis.start_again(with);
        let monitor = std::mem::replace(&mut self.monitor, Monitor::start(fleet.redis.address()));
        self.lives.last_mut().expect("one has begun").monitored = monitor.end();
        self.begin(
            &fleet.redis,
            match with {
                RestartWith::NoData => Beginning::Nothing,
                RestartWith::ItsData => Beginning::Saved,
            },
        );
        self.proxy.pass();
        fleet.proxies().for_each(TcpProxy::pass);
    }

    /// The end, once all servers have ended.
    #[must_use]
    pub fn finish(&mut self, redis: &RedisProcess) -> Trace {
        redis.command(&["ECHO", "the trace ends"]);
        eventually("MONITOR has told all", || self.monitor.has_told("the trace ends"));
        let mut lives = self.lives.clone();
        lives.last_mut().expect("one has begun").monitored = self.monitor.lines();
        Trace { connections: self.tape.copy(), lives }
    }

    fn begin(&mut self, redis: &RedisProcess, beginning: Beginning) {
        let history = redis.info("replication", "master_replid");
        self.lives.push(Life { history, beginning, monitored: Vec::new() });
    }

    fn connect(&self) -> redis::Connection {
        let client = Client::open(format!("redis://{}", self.proxy.address())).expect("a valid address");
        client.get_connection().expect("the Redis answers")
    }
}
