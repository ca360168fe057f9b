//! A TCP proxy that a test can cut, or make swallow everything for a time.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use crate::redis_trace::Tape;

/// A proxy on a port of its own of this machine. When dropped, it closes its connections.
pub struct TcpProxy {
    address: SocketAddr,
    network: Arc<Network>,
}

struct Network {
    state: Mutex<State>,
    has_changed: Condvar,
    tape: Option<Arc<Tape>>,
}

struct State {
    target: SocketAddr,
    mode: Mode,
    /// Both ends of each.
    connections: BTreeMap<u64, [TcpStream; 2]>,
    /// Connections before this number get this treatment.
    old: u64,
    next: u64,
    treatment: Treatment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    None,
    Forgotten,
    Trickle,
    TrickleOf(u64),
    Slow,
    EndsBeforeInfo,
    HoldsRequests,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    BlackHole,
    Cut,
    Dropped,
}

impl TcpProxy {
    /// A proxy that passes connections on to this address.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        Self::start_with(target, None)
    }

    /// As [`TcpProxy::start`]. Everything that it passes on is recorded.
    #[must_use]
    pub fn start_recorded(target: SocketAddr, tape: Arc<Tape>) -> Self {
        Self::start_with(target, Some(tape))
    }

    fn start_with(target: SocketAddr, tape: Option<Arc<Tape>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Mutex::new(State {
            target,
            mode: Mode::Pass,
            connections: BTreeMap::new(),
            old: 0,
            next: 0,
            treatment: Treatment::None,
        });
        let network = Arc::new(Network { state, has_changed: Condvar::new(), tape });
        let accepting = Arc::clone(&network);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.state().mode == Mode::Dropped {
                    break;
                }
                let network = Arc::clone(&accepting);
                thread::spawn(move || network.serve(&client));
            }
        });
        Self { address, network }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes on what comes, and what has come in the meantime: as late as that.
    pub fn pass(&self) {
        self.network.set_mode(Mode::Pass);
    }

    /// Closes all connections, and each new one at once.
    pub fn cut(&self) {
        self.network.set_mode(Mode::Cut);
    }

    /// Closes all connections. New ones lead to this address.
    pub fn lead_to(&self, target: SocketAddr) {
        self.cut();
        self.network.state().target = target;
        self.pass();
    }

    /// Accepts connections and passes nothing on, in either direction, not even that one side has closed. As a cable that
    /// is pulled: what is sent arrives once it is in again.
    pub fn black_hole(&self) {
        self.network.set_mode(Mode::BlackHole);
    }

    /// The other side forgets the connections that there are, and says nothing of it, as a machine that loses its power. New ones
    /// are passed on.
    pub fn forget(&self) {
        self.network.treat(Treatment::Forgotten);
    }

    /// From now on each answer takes 300 ms longer, on new connections as well.
    pub fn slow(&self) {
        self.network.treat(Treatment::Slow);
    }

    /// On the connections that there are, the answer to INFO replication does not come any more: they end before it.
    pub fn end_before_info(&self) {
        self.network.treat(Treatment::EndsBeforeInfo);
    }

    /// On the connections that there are, requests are held back until [`TcpProxy::let_go`]. Then they arrive, whether or not the client is
    /// still there. New connections are passed on.
    pub fn hold_requests(&self) {
        self.network.treat(Treatment::HoldsRequests);
    }

    /// The end of [`TcpProxy::hold_requests`].
    pub fn let_go(&self) {
        self.network.treat(Treatment::None);
    }

    /// As [`TcpProxy::trickle`], but of every fourth connection alone, from this one on. `None` ends that.
    pub fn trickle_some(&self, of_four: Option<u64>) {
        self.network.treat(of_four.map_or(Treatment::None, Treatment::TrickleOf));
    }

    /// On the connections that there are, answers come byte by byte. New ones are passed on.
    pub fn trickle(&self) {
        self.network.treat(Treatment::Trickle);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.network.set_mode(Mode::Dropped);
        // The thread that accepts looks at the mode.
        drop(TcpStream::connect(self.address));
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    fn set_mode(&self, mode: Mode) {
        let mut state = self.state();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Dropped) {
            for end in state.connections.values().flatten() {
                drop(end.shutdown(Shutdown::Both));
            }
        }
        self.has_changed.notify_all();
    }

    fn treat(&self, treatment: Treatment) {
        let mut state = self.state();
        state.old = state.next;
        state.treatment = treatment;
        if treatment == Treatment::Forgotten {
            for [_, server] in state.connections.values() {
                drop(server.shutdown(Shutdown::Both));
            }
        }
    }

    fn treatment(&self, number: u64) -> Treatment {
        let state = self.state();
        if number < state.old && state.mode != Mode::Dropped && state.mode != Mode::Cut {
            state.treatment
        } else {
            Treatment::None
        }
    }

    /// Waits as long as nothing is passed on. False if the connection has to end.
    fn may_pass(&self) -> bool {
        let state = self.has_changed.wait_while(self.state(), |state| state.mode == Mode::BlackHole);
        state.expect("no thread panics with it").mode == Mode::Pass
    }

    fn serve(&self, client: &TcpStream) {
        if !self.may_pass() {
            return;
        }
        // An error means that the connection has ended, there or here.
        let Ok(server) = TcpStream::connect(self.state().target) else { return };
        let Ok(number) = self.keep(client, &server) else { return };
        // It may have been cut before it was kept.
        if self.may_pass() {
            let record = self.tape.as_deref().zip(server.local_addr().ok()).map(|(tape, from)| (tape, tape.open(from)));
            thread::scope(|scope| {
                scope.spawn(|| self.copy(number, client, &server, false, record));
                self.copy(number, &server, client, true, record);
            });
        }
        self.state().connections.remove(&number);
    }

    /// Keeps both ends, so that they can be cut.
    fn keep(&self, client: &TcpStream, server: &TcpStream) -> io::Result<u64> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.connections.insert(number, ends);
        Ok(number)
    }

    fn copy(
        &self,
        number: u64,
        mut from: &TcpStream,
        mut to: &TcpStream,
        is_answer: bool,
        record: Option<(&Tape, usize)>,
    ) {
        let mut bytes = [0; 16 * 1024];
        loop {
            let slow = match self.treatment(number) {
                Treatment::Trickle => is_answer,
                Treatment::TrickleOf(of_four) => is_answer && number % 4 == of_four,
                Treatment::None
                | Treatment::Forgotten
                | Treatment::Slow
                | Treatment::EndsBeforeInfo
                | Treatment::HoldsRequests => false,
            };
            let end = if slow { 1 } else { bytes.len() };
            let read = from.read(&mut bytes[..end]).unwrap_or(0);
            while self.treatment(number) == Treatment::Forgotten {
                thread::sleep(std::time::Duration::from_millis(50));
            }
            while !is_answer && self.treatment(number) == Treatment::HoldsRequests {
                thread::sleep(std::time::Duration::from_millis(10));
            }
            if is_answer && self.state().treatment == Treatment::Slow {
                thread::sleep(std::time::Duration::from_millis(300));
            }
            if is_answer && self.treatment(number) == Treatment::EndsBeforeInfo {
                let info = bytes[..read].windows(13).position(|part| part == b"# Replication");
                if let Some(info) = info {
                    let begin = bytes[..info].iter().rposition(|byte| *byte == b'$').unwrap_or(info);
                    drop(to.write_all(&bytes[..begin]));
                    break;
                }
            }
            if slow {
                thread::sleep(std::time::Duration::from_millis(300));
            }
            if !self.may_pass() || read == 0 {
                break;
            }
            if let Some((tape, connection)) = record {
                tape.passed_on(connection, is_answer, &bytes[..read]);
            }
            if to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Write));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use super::TcpProxy;

    /// A proxy in front of a server that sends back what it reads.
    fn echo() -> TcpProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        TcpProxy::start(address)
    }

    fn connect(proxy: &TcpProxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    }

    fn read(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
        stream.read(&mut [0; 8]).map_err(|error| error.kind())
    }

    fn is_ended(stream: &TcpStream) -> bool {
        matches!(read(stream), Ok(0) | Err(ErrorKind::ConnectionReset))
    }

    #[test]
    fn black_hole_delivers_late() {
        let proxy = echo();
        let mut before = connect(&proxy);
        before.write_all(b"a").unwrap();
        assert_eq!(read(&before), Ok(1));
        proxy.black_hole();
        let mut during = connect(&proxy);
        before.write_all(b"late").unwrap();
        during.write_all(b"later").unwrap();
        assert_eq!((read(&before), read(&during)), (Err(ErrorKind::WouldBlock), Err(ErrorKind::WouldBlock)));
        proxy.pass();
        assert_eq!((read(&before), read(&during)), (Ok(4), Ok(5)));
    }

    #[test]
    fn held_requests_arrive_late_on_their_connection_alone() {
        let proxy = echo();
        let mut before = connect(&proxy);
        before.write_all(b"a").unwrap();
        assert_eq!(read(&before), Ok(1));
        proxy.hold_requests();
        let mut during = connect(&proxy);
        before.write_all(b"late").unwrap();
        during.write_all(b"now").unwrap();
        assert_eq!((read(&before), read(&during)), (Err(ErrorKind::WouldBlock), Ok(3)));
        proxy.let_go();
        assert_eq!(read(&before), Ok(4));
    }

    #[test]
    fn cut_ends_connections_until_it_passes_again() {
        let proxy = echo();
        let mut open = connect(&proxy);
        open.write_all(b"a").unwrap();
        assert_eq!(read(&open), Ok(1));
        proxy.cut();
        assert!(is_ended(&open));
        assert!(is_ended(&connect(&proxy)));
        proxy.pass();
        let mut after = connect(&proxy);
        after.write_all(b"ab").unwrap();
        assert_eq!(read(&after), Ok(2));
    }

    #[test]
    fn end_of_one_side_reaches_the_other() {
        let proxy = echo();
        let stream = connect(&proxy);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_ended(&stream));
    }
}
