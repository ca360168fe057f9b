//! What proxies record: the bytes of each connection in both directions, with times.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// The recording of all connections of some proxies.
#[derive(Debug, Default)]
pub struct Tape(Mutex<Vec<Connection>>);

/// A connection to the Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connection {
    /// The address from which the Redis sees it.
    pub(super) address: SocketAddr,
    /// When it was opened.
    pub(super) opened: u64,
    /// What was sent to the Redis.
    pub(super) sent: Vec<Chunk>,
    /// What the Redis answered.
    pub(super) answered: Vec<Chunk>,
}

/// Bytes that were passed on together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// When, as [`now`].
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// The time in microseconds since the Unix epoch, as MONITOR has it.
pub(super) fn now() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock of this machine is right");
    u64::try_from(time.as_micros()).expect("it is not that late")
}

impl Tape {
    /// A connection begins. Returns its number.
    pub(crate) fn open(&self, address: SocketAddr) -> usize {
        let mut connections = self.connections();
        connections.push(Connection { address, opened: now(), sent: Vec::new(), answered: Vec::new() });
        connections.len() - 1
    }

    /// These bytes are about to be passed on.
    pub(crate) fn passed_on(&self, connection: usize, is_answer: bool, bytes: &[u8]) {
        let mut connections = self.connections();
        let Connection { sent, answered, .. } = &mut connections[connection];
        let chunks = if is_answer { answered } else { sent };
        chunks.push(Chunk { at: now(), bytes: bytes.to_owned() });
    }

    /// All connections so far.
    pub(super) fn copy(&self) -> Vec<Connection> {
        self.connections().clone()
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().expect("no thread panics with it")
    }
}
