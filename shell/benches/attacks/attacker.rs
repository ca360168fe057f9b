//! A load of its own making: non-blocking sockets on one thread, and no WebSocket library.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::attack::{MAX_CONNECTS_PER_SECOND, Script};

/// How often the attacker looks at each of its connections.
const TURN: Duration = Duration::from_millis(20);
/// How much an endless connection sends in a turn, at most.
const MAX_TURN_BYTES: usize = 32 * 1024;

/// Attackers on several addresses.
pub(crate) struct Attacker<'a> {
    target: SocketAddr,
    script: &'a Script,
    /// By address. Some wait for the allowed rate to open again.
    connections: Vec<Vec<Option<Connection>>>,
    started_at: Instant,
    /// How many connections each address has opened.
    opened: Vec<u32>,
}

struct Connection {
    stream: TcpStream,
    opened_at: Instant,
    /// Whether the server has answered. It then gets the messages.
    is_open: bool,
    unsent: Vec<u8>,
    sent_messages: u32,
}

impl<'a> Attacker<'a> {
    pub(crate) fn new(target: SocketAddr, addresses: u8, connections: usize, script: &'a Script) -> Self {
        let each = connections / usize::from(addresses);
        let connections = (0..addresses).map(|_| (0..each).map(|_| None).collect()).collect();
        Self { target, script, connections, started_at: Instant::now(), opened: vec![0; addresses.into()] }
    }

    pub(crate) fn run_until(&mut self, end: Instant) {
        let mut scratch = vec![0; 64 * 1024];
        while Instant::now() < end {
            let turn = Instant::now();
            for address in 0..self.connections.len() {
                self.turn(address, &mut scratch);
            }
            thread::sleep(TURN.saturating_sub(turn.elapsed()));
        }
    }

    fn turn(&mut self, address: usize, scratch: &mut [u8]) {
        let seconds = self.started_at.elapsed().as_secs_f64();
        for connection in &mut self.connections[address] {
            if let Some(open) = connection
                && open.turn(self.script, scratch).is_err()
            {
                *connection = None;
            }
            // A script without messages is over at once, so one turn can take several connections.
            while connection.is_none() && f64::from(self.opened[address]) < seconds * f64::from(MAX_CONNECTS_PER_SECOND)
            {
                self.opened[address] += 1;
                let last = u8::try_from(address + 1).expect("attacks have few addresses");
                *connection = Connection::open(IpAddr::V4(Ipv4Addr::new(127, 0, 2, last)), self.target, self.script);
            }
        }
    }
}

impl Connection {
    fn open(from: IpAddr, target: SocketAddr, script: &Script) -> Option<Self> {
        const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).ok()?;
        socket.bind(&SocketAddr::new(from, 0).into()).ok()?;
        socket.connect(&target.into()).ok()?;
        socket.set_nonblocking(true).ok()?;
        let mut stream = TcpStream::from(socket);
        let first = if script.upgrades { UPGRADE.as_bytes() } else { &script.opening };
        stream.write_all(first).ok()?;
        // Without messages there is nothing more to do: what it sent is the attack.
        let is_over = script.messages == Some(0);
        (!is_over).then(|| Self {
            stream,
            opened_at: Instant::now(),
            is_open: !script.upgrades,
            unsent: Vec::new(),
            sent_messages: 0,
        })
    }

    /// Sends what is due, and discards what the server sent. An error means that the connection is over.
    fn turn(&mut self, script: &Script, scratch: &mut [u8]) -> Result<(), ErrorKind> {
        match self.stream.read(scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof),
            Ok(_) if !self.is_open => {
                self.is_open = true;
                self.opened_at = Instant::now();
                self.unsent.extend(&script.opening);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.kind()),
        }
        if !self.is_open {
            return Ok(());
        }
        let mut allowed = MAX_TURN_BYTES;
        while self.send()? && allowed > 0 && self.is_due(script) {
            self.unsent.extend(&script.message);
            self.sent_messages += 1;
            allowed = allowed.saturating_sub(script.message.len());
        }
        if self.unsent.is_empty() && script.messages.is_some_and(|most| self.sent_messages >= most) {
            return Err(ErrorKind::ConnectionReset);
        }
        Ok(())
    }

    fn is_due(&self, script: &Script) -> bool {
        let rate = script.per_second.map_or(f64::INFINITY, f64::from);
        let is_allowed = script.messages.is_none_or(|most| self.sent_messages < most);
        is_allowed && f64::from(self.sent_messages) < self.opened_at.elapsed().as_secs_f64() * rate
    }

    /// Whether everything is sent.
    fn send(&mut self) -> Result<bool, ErrorKind> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.kind()),
            }
        }
        Ok(true)
    }
}
