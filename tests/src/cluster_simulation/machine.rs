//! A machine, the server process on it, and the process's connections to the shared store.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use session_core::cluster::{Answer, Bucket, BucketEvent, CallId, Request, RequestId};
use session_core::ledger::{KnownToken, StoreCommand};
use session_core::{DisplayName, NodeId, ResumeKey, SessionId, Timestamp, UserId};

/// A machine. Its clock goes wrong, and survives its processes.
#[derive(Debug)]
pub(super) struct Machine {
    /// The running server.
    pub(super) process: Option<Process>,
    /// The node id of the last process, unless the file was lost.
    pub(super) id_file: Option<NodeId>,
    /// How far its clock is ahead at the beginning, in milliseconds.
    pub(super) offset: u64,
    /// How many milliseconds its clock counts in a second.
    pub(super) rate: u64,
    /// Until when the process is stopped.
    pub(super) paused_until: u64,
    /// Until when it reaches no store.
    pub(super) unreachable_until: Vec<u64>,
    /// Until when answers come to it late, just within the time limit of a call.
    pub(super) slow_until: u64,
    /// Whether it reaches the former primary of a shard that is split.
    pub(super) at_former: Vec<bool>,
}

/// A server process.
#[derive(Debug)]
pub(super) struct Process {
    /// The id of new sessions.
    pub(super) node: NodeId,
    /// No other process has it.
    pub(super) number: u64,
    /// The machine of each bucket.
    pub(super) buckets: Vec<Bucket>,
    /// One for each shard.
    pub(super) connections: Vec<Connection>,
    /// The clients that are connected and have asked for a slot.
    pub(super) clients: BTreeMap<SessionId, Client>,
    /// Who asked.
    pub(super) calls: BTreeMap<CallId, SessionId>,
    /// The commands that are neither answered nor withdrawn, with their buckets.
    pub(super) unanswered: BTreeMap<CallId, u16>,
    /// Releases that are owed, because nobody knows whether the acquire was applied.
    pub(super) owed: Vec<(UserId, SessionId)>,
    pub(super) sessions: u64,
    pub(super) last_call: u64,
}

/// A connection to a shard.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) epoch: u64,
    /// Requests that the store has not applied, in the order in which they were sent.
    pub(super) sent: VecDeque<Sent>,
    /// Answers that have not arrived, in the same order.
    pub(super) answers: VecDeque<(Sent, Answer)>,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) bucket: u16,
    pub(super) id: RequestId,
    pub(super) request: Request,
    /// When it was sent.
    pub(super) at: u64,
}

/// A client with a session.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) user: UserId,
    pub(super) bucket: u16,
    pub(super) state: ClientState,
    /// With which it can resume its slot.
    pub(super) key: Option<ResumeKey>,
    /// The device that it names.
    pub(super) device: Option<DisplayName>,
    /// The highest limit that may have been in force from when it asked until it was told.
    pub(super) limit: u32,
    /// When it was told, in the order in which all clients were.
    pub(super) told: u64,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientState {
    /// Its command is not answered.
    Asking(CallId),
    /// It waits in line.
    InLine,
    /// Its slot was granted. It does not know.
    Granted,
    /// It was told SUCCESS, and is served.
    Told,
    /// It was told SUCCESS and has lost its slot. Its connection is not closed yet.
    Leaving,
}

impl Client {
    /// Whether the client was told that it is in, and is connected.
    #[must_use]
    pub(super) const fn is_in(&self) -> bool {
        matches!(self.state, ClientState::Told | ClientState::Leaving)
    }
}

impl Machine {
    /// The time by its clock.
    #[must_use]
    pub(super) const fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_millis(1_700_000_000_000 + self.offset + now * self.rate / 1000))
    }

    /// Whether its process runs.
    #[must_use]
    pub(super) const fn runs(&self, now: u64) -> bool {
        self.process.is_some() && now >= self.paused_until
    }
}

impl Process {
    /// The id of the next command.
    pub(super) const fn call(&mut self) -> CallId {
        self.last_call += 1;
        CallId(self.last_call)
    }

    /// The command that gives the client's slot up.
    pub(super) fn release(&mut self, session: SessionId, client: &Client, lingers: bool, at: Timestamp) -> BucketEvent {
        let user = client.user.clone();
        let command = if lingers {
            StoreCommand::Linger { user, session, at, token: KnownToken::Granted }
        } else {
            StoreCommand::Release { user, session }
        };
        BucketEvent::Submit(self.call(), command)
    }
}
