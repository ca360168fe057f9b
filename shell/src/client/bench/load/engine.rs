//! Runs cycles on one thread, without an executor: a measuring stick must cost less than what it measures.
//!
//! Sockets never block, the bytes to send are prepared, and of the usual answers only the beginning is read. A server that
//! does something else is read with the same care as by [`Connection`](crate::client::Connection), and so costs more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read as _};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dialogue::{Answer, Dialogue, Heard};
use super::readiness::{Readiness, Ready, Watched};
use super::schedule::{Arrival, ArrivalSchedule, CONNECT_LEAD};
use super::script::Script;
use super::sign_in::SignInTiming;
use super::socket::{ReadBuffer, Socket, Tls};
use super::{LoadStats, Users};
use crate::client::upgrade::BODY_TIMEOUT;
use crate::client::{ConnectError, Error};

/// The pause of a closed loop after a failed cycle.
const PAUSE: Duration = Duration::from_millis(100);

/// The key of [`Task::control`].
const CONTROL: u64 = u64::MAX;

/// What the engine of one thread is to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) script: Arc<Script>,
    pub(super) tls: Option<Tls>,
    /// The addresses of the server, in the order to try them.
    pub(super) addresses: Arc<[SocketAddr]>,
    pub(super) users: Users,
    pub(super) pace: Pace,
    /// When to start no more cycles.
    pub(super) end: Instant,
    /// How long to wait for those that are under way then.
    pub(super) grace: Duration,
    pub(super) stats: Arc<LoadStats>,
    /// A byte on it starts no more cycles. Its end ends the engine at once.
    pub(super) control: UnixStream,
}

/// When the cycles of one thread start.
#[derive(Debug)]
pub(super) enum Pace {
    /// This many at once.
    Closed { at_once: usize },
    /// At each `step`th time of the schedule from `next` on, unless `max_concurrent` are active.
    Open { schedule: ArrivalSchedule, next: u64, step: u64, max_concurrent: usize },
}

/// A thread's cycles.
pub(super) struct Engine {
    task: Task,
    phase: Phase,
    readiness: Readiness,
    /// Each is in the place that its key names.
    cycles: Vec<Option<Box<Cycle>>>,
    free: Vec<u32>,
    active: usize,
    /// Tells the cycles apart that had the same place.
    generation: u32,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    buffer: ReadBuffer,
    out: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// No more cycles start. Those under way have until then.
    Ending {
        until: Instant,
    },
    Stopped,
}

/// What to do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Start a cycle of a closed loop.
    Start,
    /// Send AUTHENTICATE.
    Authenticate(u64),
    /// Wait no longer for the text of a refusal.
    StopReading(u64),
}

#[derive(Debug)]
struct Cycle {
    key: u64,
    socket: Socket,
    dialogue: Dialogue,
    /// The index of the address that it is connected to.
    address: usize,
    /// Whether it is watched for room to send.
    sends: bool,
    is_refused: bool,
    started_at: Instant,
    arrival: Option<Arrival>,
    /// When AUTHENTICATE was sent, or due.
    asked_at: Instant,
    idle: Duration,
    late: Option<Duration>,
    answer: Option<(Answer, Duration)>,
}

/// What becomes of a cycle after an event.
#[derive(Debug)]
enum Step {
    Waits,
    Ended,
}

impl Engine {
    pub(super) fn new(task: Task) -> io::Result<Self> {
        let readiness = Readiness::new()?;
        task.control.set_nonblocking(true)?;
        readiness.add(Watched { socket: task.control.as_fd(), key: CONTROL, sends: false })?;
        Ok(Self {
            task,
            phase: Phase::Running,
            readiness,
            cycles: Vec::new(),
            free: Vec::new(),
            active: 0,
            generation: 0,
            timers: BinaryHeap::new(),
            buffer: ReadBuffer::default(),
            out: Vec::new(),
        })
    }

    /// Runs until all cycles have ended, or for the time of grace after the last could start.
    pub(super) fn run(&mut self) -> io::Result<()> {
        precise_timers();
        if let Pace::Closed { at_once } = self.task.pace {
            for _ in 0..at_once {
                self.start(None);
            }
        }
        let mut ready = Vec::new();
        loop {
            self.do_what_is_due();
            let Some(timeout) = self.next_wait() else { return Ok(()) };
            let cycles = self.cycles.iter().flatten().map(|cycle| cycle.watched());
            let control = Watched { socket: self.task.control.as_fd(), key: CONTROL, sends: false };
            self.readiness.wait(cycles.chain([control]), Some(timeout), &mut ready)?;
            for &ready in &ready {
                if ready.key == CONTROL {
                    self.read_control();
                } else {
                    self.go_on(ready);
                }
            }
        }
    }

    /// How long nothing is due. `None` once all is over.
    fn next_wait(&self) -> Option<Duration> {
        let end = match self.phase {
            Phase::Stopped => return None,
            Phase::Ending { until } => {
                if self.active == 0 {
                    return None;
                }
                until
            }
            Phase::Running => match &self.task.pace {
                Pace::Closed { .. } => self.task.end,
                Pace::Open { schedule, next, .. } => schedule.time(*next),
            },
        };
        let next = self.timers.peek().map_or(end, |Reverse((at, _))| end.min(*at));
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        match self.phase {
            Phase::Running => self.start_what_is_due(now),
            Phase::Ending { until } if now >= until => self.phase = Phase::Stopped,
            Phase::Ending { .. } | Phase::Stopped => {}
        }
        while let Some(&Reverse((at, timer))) = self.timers.peek()
            && at <= now
        {
            let _due = self.timers.pop();
            match timer {
                Timer::Start if self.phase == Phase::Running => self.start(None),
                Timer::Start => {}
                Timer::Authenticate(key) => self.with_cycle(key, |engine, cycle| {
                    cycle.late = Some(cycle.asked_at.elapsed());
                    engine.authenticate(cycle);
                    engine.send(cycle)
                }),
                Timer::StopReading(key) => {
                    self.with_cycle(key, |engine, cycle| Err(cycle.dialogue.stop_reading(&engine.task.script)));
                }
            }
        }
    }

    fn start_what_is_due(&mut self, now: Instant) {
        if let Pace::Open { schedule, next, step, max_concurrent } = &self.task.pace {
            let (schedule, step, max_concurrent) = (*schedule, *step, *max_concurrent);
            let mut number = *next;
            while schedule.time(number) <= now {
                if schedule.time(number) >= self.task.end {
                    break;
                }
                if self.active >= max_concurrent {
                    self.task.stats.skip();
                } else {
                    self.start(Some(schedule.arrival(number)));
                }
                number += step;
            }
            if let Pace::Open { next, .. } = &mut self.task.pace {
                *next = number;
            }
            if schedule.time(number) >= self.task.end {
                self.end();
            }
        } else if now >= self.task.end {
            self.end();
        }
    }

    fn end(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Ending { until: Instant::now() + self.task.grace };
        }
    }

    fn read_control(&mut self) {
        match self.task.control.read(&mut [0; 16]) {
            Ok(0) => self.phase = Phase::Stopped,
            Ok(_) => self.end(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.phase = Phase::Stopped,
        }
    }

    fn start(&mut self, arrival: Option<Arrival>) {
        self.task.stats.record_start();
        let started_at = arrival.map_or_else(Instant::now, |arrival| arrival.at - CONNECT_LEAD);
        let no_address = || io::Error::new(io::ErrorKind::InvalidInput, "the server's name has no address");
        let (address, socket) = match self.connect(0, no_address()) {
            Ok(connected) => connected,
            Err(error) => return self.fail(&error),
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.cycles.push(None);
            u32::try_from(self.cycles.len() - 1).expect("there are fewer descriptors than this")
        });
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        let mut cycle = Box::new(Cycle {
            key: u64::from(self.generation) << 32 | u64::from(place),
            socket,
            dialogue: Dialogue::default(),
            address,
            sends: false,
            is_refused: false,
            started_at,
            arrival,
            asked_at: started_at,
            idle: Duration::ZERO,
            late: None,
            answer: None,
        });
        self.active += 1;
        let begun = self.begin(&mut cycle);
        self.finish(cycle, begun.map(|()| Step::Waits));
    }

    /// Begins to connect to the address with this index, or one after it.
    fn connect(&self, first: usize, mut error: io::Error) -> Result<(usize, Socket), Error> {
        for (index, &address) in self.task.addresses.iter().enumerate().skip(first) {
            match Socket::connect(address, self.task.tls.as_ref()) {
                Ok(socket) => return Ok((index, socket)),
                Err(reason) => error = reason,
            }
        }
        Err(self.unreachable(error))
    }

    fn unreachable(&self, reason: io::Error) -> Error {
        let url = &self.task.script.url;
        match ConnectError::from_stream_error(&reason) {
            Some(reason) => Error::handshake(url, reason),
            None => Error::Unreachable { url: Box::new(url.clone()), reason },
        }
    }

    /// Sends the request of a cycle that begins to connect.
    fn begin(&mut self, cycle: &mut Cycle) -> Result<(), Error> {
        loop {
            let sent = cycle.socket.send(&self.task.script.request);
            cycle.sends = cycle.socket.has_unsent();
            match sent.and_then(|()| self.readiness.add(cycle.watched())) {
                Ok(()) => return Ok(()),
                Err(error) => (cycle.address, cycle.socket) = self.connect(cycle.address + 1, error)?,
            }
        }
    }

    fn go_on(&mut self, ready: Ready) {
        self.with_cycle_step(ready.key, |engine, cycle| engine.advance(cycle, ready.is_ending));
    }

    fn with_cycle(&mut self, key: u64, work: impl FnOnce(&mut Self, &mut Cycle) -> Result<(), Error>) {
        self.with_cycle_step(key, |engine, cycle| work(engine, cycle).map(|()| Step::Waits));
    }

    /// Does something with a cycle, if it has not ended.
    fn with_cycle_step(&mut self, key: u64, work: impl FnOnce(&mut Self, &mut Cycle) -> Result<Step, Error>) {
        let place = place(key);
        if let Some(slot) = self.cycles.get_mut(place)
            && let Some(mut cycle) = slot.take_if(|cycle| cycle.key == key)
        {
            let step = work(self, &mut cycle);
            self.finish(cycle, step);
        }
    }

    /// Keeps a cycle that waits, and counts one that has ended.
    fn finish(&mut self, cycle: Box<Cycle>, step: Result<Step, Error>) {
        let place = place(cycle.key);
        if let Ok(Step::Waits) = step {
            self.cycles[place] = Some(cycle);
            return;
        }
        self.active -= 1;
        self.free.push(u32::try_from(place).expect("a place has 32 bits"));
        match step {
            Ok(_) => {
                let (answer, latency) = cycle.answer.expect("a cycle that ends well was answered");
                let Cycle { started_at, idle, late, .. } = *cycle;
                let is_refused = answer == Answer::Refused;
                // Closed before the time is taken: closing is a part of the cycle.
                drop(cycle);
                self.task.stats.record_success(&SignInTiming { is_refused, started_at, idle, latency, late });
                if self.goes_round() {
                    self.start(None);
                }
            }
            Err(error) => {
                drop(cycle);
                self.fail(&error);
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        self.task.stats.record_failure(error);
        if self.goes_round() {
            self.timers.push(Reverse((Instant::now() + PAUSE, Timer::Start)));
        }
    }

    /// Whether a cycle follows one that has ended.
    fn goes_round(&self) -> bool {
        self.phase == Phase::Running
            && match self.task.pace {
                Pace::Closed { .. } => Instant::now() < self.task.end,
                Pace::Open { .. } => false,
            }
    }

    /// Reads what there is, and answers.
    fn advance(&mut self, cycle: &mut Cycle, is_ending: bool) -> Result<Step, Error> {
        if !cycle.socket.is_connected()
            && let Err(error) = cycle.socket.take_error()
        {
            (cycle.address, cycle.socket) = self.connect(cycle.address + 1, error)?;
            return self.begin(cycle).map(|()| Step::Waits);
        }
        if cycle.sends {
            self.out.clear();
            self.send(cycle)?;
        }
        let mut buffer = mem::take(&mut self.buffer);
        let step = self.read(cycle, is_ending, &mut buffer);
        self.buffer = buffer;
        step
    }

    fn read(&mut self, cycle: &mut Cycle, is_ending: bool, buffer: &mut ReadBuffer) -> Result<Step, Error> {
        let script = Arc::clone(&self.task.script);
        loop {
            let received = match cycle.socket.receive(buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(Step::Waits),
                Err(error) if cycle.socket.is_handshaking() => {
                    return Err(Error::handshake(&script.url, ConnectError::from_tls(&error)));
                }
                Err(error) => return cycle.dialogue.fail(&script, error).map(|()| Step::Ended),
            };
            self.out.clear();
            let heard = cycle.dialogue.receive(&script, received.bytes, &mut self.out);
            let heard = match heard {
                Ok(heard) => {
                    self.hear(cycle, &heard);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            // Also the answer to a close frame that comes too early.
            let sent = self.send(cycle);
            heard?;
            if received.is_end {
                return cycle.dialogue.end(&script).map(|()| Step::Ended);
            }
            sent?;
            if received.is_drained && !is_ending {
                return Ok(Step::Waits);
            }
        }
    }

    fn hear(&mut self, cycle: &mut Cycle, heard: &Heard) {
        if heard.greeted {
            if cycle.socket.is_resumed() {
                self.task.stats.record_resumption();
            }
            let now = Instant::now();
            cycle.asked_at = now;
            let mut waits = false;
            if let Some(Arrival { at, begun_late }) = cycle.arrival {
                cycle.asked_at = at;
                cycle.idle = at.saturating_duration_since(now);
                waits = !cycle.idle.is_zero();
                // If it is too late, connecting took too long. Only the late start is the client's fault.
                cycle.late = Some(now.saturating_duration_since(at).min(begun_late));
            }
            if waits {
                self.timers.push(Reverse((cycle.asked_at, Timer::Authenticate(cycle.key))));
            } else {
                self.authenticate(cycle);
            }
        }
        if let Some(answer) = heard.answered {
            cycle.answer = Some((answer, cycle.asked_at.elapsed()));
        }
        if heard.refused && !mem::replace(&mut cycle.is_refused, true) {
            self.timers.push(Reverse((Instant::now() + BODY_TIMEOUT, Timer::StopReading(cycle.key))));
        }
    }

    fn authenticate(&mut self, cycle: &mut Cycle) {
        let user = self.task.users.random();
        cycle.dialogue.authenticate(&self.task.script, user, &mut self.out);
    }

    /// Sends what is in `out`, and what could not be sent before.
    fn send(&mut self, cycle: &mut Cycle) -> Result<(), Error> {
        let sent = if self.out.is_empty() { Ok(()) } else { cycle.socket.send(&self.out) };
        self.out.clear();
        let sent = sent.and_then(|()| if cycle.sends { cycle.socket.flush() } else { Ok(()) });
        // What the server said before it hung up is still to be read, and tells more than this error.
        if sent.is_err() {
            return Ok(());
        }
        let sends = cycle.socket.has_unsent();
        if mem::replace(&mut cycle.sends, sends) != sends {
            let modified = self.readiness.modify(cycle.watched());
            modified.map_err(|error| Error::Lost(error.to_string()))?;
        }
        Ok(())
    }
}

impl Cycle {
    fn watched(&self) -> Watched<'_> {
        Watched { socket: self.socket.as_fd(), key: self.key, sends: self.sends }
    }
}

/// The place that a key names.
fn place(key: u64) -> usize {
    usize::try_from(key & u64::from(u32::MAX)).expect("a place has 32 bits")
}

/// Linux may end a wait 50 µs late, to save energy. That would be in the latencies.
#[cfg(target_os = "linux")]
fn precise_timers() {
    // Without it the waits are only less exact.
    let _ignored: Result<(), rustix::io::Errno> = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

#[cfg(not(target_os = "linux"))]
fn precise_timers() {}
