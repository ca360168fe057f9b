//! Expensive work in fair turns: the client that has used least goes first.
//!
//! ```
//! use core::num::NonZeroUsize;
//! use core::time::Duration;
//! use session_core::fair_queue::FairQueue;
//!
//! let mut queue = FairQueue::new(NonZeroUsize::MIN);
//! let first = queue.join("mallory");
//! let second = queue.join("mallory");
//! let ada = queue.join("ada");
//! assert_eq!(queue.start(), Some(first));
//! assert_eq!(queue.start(), None, "one turn at a time");
//! queue.end(first, Duration::from_millis(4));
//! assert_eq!(queue.start(), Some(ada), "mallory has had more");
//! queue.end(ada, Duration::from_millis(4));
//! assert_eq!(queue.start(), Some(second));
//! ```

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::num::NonZeroUsize;
use core::time::Duration;

/// Gives turns to the work of clients, a few at a time.
///
/// Work joins the queue, gets its turn, and ends; or it leaves, before its turn or during it.
///
/// # What always holds
///
/// - At most as many turns are under way as [`FairQueue::new`] says. If fewer are, nothing that could start waits: call
///   [`FairQueue::start`] after each change, until it returns `None`.
/// - The next turn is for the client with the fewest turns under way, and among these for the one that has used least.
///   One client gets its turns in the order of joining.
/// - What a client used is forgotten once the others have caught up. A client that comes back after that, or is new, starts
///   [`FairQueue::CREDIT`] below the level, which is what the client that is served now has used. So it goes before all that
///   always have work queued, until it has used that much itself.
/// - A client that waits is served after finitely many turns, also if new clients come without end: each turn moves
///   the level at which clients start.
/// - The queue remembers the clients that wait or have a turn, and at most [`FairQueue::MAX_IDLE`] others.
#[derive(Debug)]
pub struct FairQueue<C> {
    max_running: usize,
    clients: BTreeMap<C, Client>,
    /// The clients that wait: by their turns under way, what they have used, and when they began to wait.
    waiting: BTreeSet<(usize, u64, u64, C)>,
    /// The clients that neither wait nor have a turn, but have less than the whole credit. By what they have used.
    idle: BTreeSet<(u64, C)>,
    /// The client of each ticket.
    tickets: BTreeMap<Ticket, (C, bool)>,
    running: usize,
    last_ticket: u64,
    /// What the client that is served now has used, in nanoseconds. It only grows.
    level: u64,
}

/// One piece of work in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

#[derive(Debug, Default)]
struct Client {
    /// In nanoseconds, on the scale of the level.
    used: u64,
    running: usize,
    /// When it began to wait.
    since: u64,
    waiting: VecDeque<Ticket>,
}

impl<C: Ord + Copy> FairQueue<C> {
    /// The clients remembered although they neither wait nor have a turn. Above this the one that used least is forgotten.
    pub const MAX_IDLE: usize = 4096;
    /// How much a client may use before those that use all they can get go before it.
    pub const CREDIT: Duration = Duration::from_nanos(Self::CREDIT_NANOS);
    const CREDIT_NANOS: u64 = 100_000_000;

    /// A queue that has this number of turns under way at most.
    #[must_use]
    pub const fn new(max_running: NonZeroUsize) -> Self {
        Self {
            max_running: max_running.get(),
            clients: BTreeMap::new(),
            waiting: BTreeSet::new(),
            idle: BTreeSet::new(),
            tickets: BTreeMap::new(),
            running: 0,
            last_ticket: 0,
            level: Self::CREDIT_NANOS,
        }
    }

    /// Queues a piece of work of this client.
    pub fn join(&mut self, client: C) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.tickets.insert(ticket, (client, false));
        let least = self.level - Self::CREDIT_NANOS;
        self.change(client, |state| {
            if state.waiting.is_empty() {
                state.since = ticket.0;
                state.used = state.used.max(least);
            }
            state.waiting.push_back(ticket);
        });
        ticket
    }

    /// The work whose turn it is. `None` if nothing waits, or enough turns are under way.
    pub fn start(&mut self) -> Option<Ticket> {
        if self.running >= self.max_running {
            return None;
        }
        let &(_, used, _, client) = self.waiting.first()?;
        let &ticket = self.clients.get(&client)?.waiting.front()?;
        self.level = self.level.max(used);
        self.running += 1;
        let last = self.last_ticket;
        self.change(client, |state| {
            state.waiting.pop_front();
            state.running += 1;
            state.since = last;
        });
        self.tickets.insert(ticket, (client, true));
        Some(ticket)
    }

    /// The work has ended, or is given up, before its turn or during it. `used` is the processor time that it took.
    pub fn end(&mut self, ticket: Ticket, used: Duration) {
        let Some((client, is_running)) = self.tickets.remove(&ticket) else { return };
        if !is_running {
            return self.change(client, |state| state.waiting.retain(|&waiting| waiting != ticket));
        }
        let used = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.running -= 1;
        // As if all that wait had been served at once, each at an equal share of the speed.
        self.level = self.level.saturating_add(used / (self.waiting.len() as u64 + 1));
        self.change(client, |state| {
            state.running -= 1;
            state.used = state.used.saturating_add(used);
        });
        self.forget();
    }

    /// The number of turns under way.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// The number of pieces of work, waiting or under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether there is no work.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// The number of clients remembered. The queue's memory depends on it and on [`FairQueue::len`].
    #[must_use]
    pub fn tracked_clients(&self) -> usize {
        self.clients.len()
    }

    /// Changes a client, and puts it where it belongs.
    fn change(&mut self, client: C, change: impl FnOnce(&mut Client)) {
        let state = self.clients.entry(client).or_default();
        self.waiting.remove(&(state.running, state.used, state.since, client));
        self.idle.remove(&(state.used, client));
        change(state);
        if !state.waiting.is_empty() {
            self.waiting.insert((state.running, state.used, state.since, client));
        } else if state.running == 0 {
            self.idle.insert((state.used, client));
        }
    }

    /// Forgets idle clients that the others have caught up with. If nobody waits, all have.
    fn forget(&mut self) {
        while let Some(&(used, client)) = self.idle.first() {
            if used > self.level - Self::CREDIT_NANOS && !self.tickets.is_empty() && self.idle.len() <= Self::MAX_IDLE {
                break;
            }
            self.idle.pop_first();
            self.clients.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MILLIS: Duration = Duration::from_millis(1);

    fn queue(max_running: usize) -> FairQueue<u32> {
        FairQueue::new(NonZeroUsize::new(max_running).unwrap())
    }

    #[test]
    fn newcomer_goes_before_clients_with_long_queues() {
        let mut queue = queue(1);
        let mut tickets: BTreeMap<Ticket, u32> = (0..5000).map(|n| (queue.join(n % 50), n % 50)).collect();
        for _ in 0..1000 {
            let turn = queue.start().unwrap();
            tickets.remove(&turn);
            queue.end(turn, 4 * MILLIS);
        }
        let busy = queue.start().unwrap();
        let newcomer = queue.join(99);
        queue.end(busy, 4 * MILLIS);
        assert_eq!(queue.start(), Some(newcomer));
    }

    #[test]
    fn dear_work_of_one_client_delays_only_that_client() {
        let mut queue = queue(1);
        let mut owner = BTreeMap::new();
        for n in 0..100 {
            owner.insert(queue.join(0), 0);
            owner.insert(queue.join(1 + n % 2), 1 + n % 2);
        }
        let mut used = [0; 3];
        for _ in 0..60 {
            let turn = queue.start().unwrap();
            let client = owner[&turn] as usize;
            let cost = if client == 0 { 40 } else { 1 };
            used[client] += cost;
            queue.end(turn, cost * MILLIS);
        }
        assert!(used[1] + used[2] >= 50 && used[0] <= 3 * 40, "{used:?}");
    }

    #[test]
    fn several_turns_go_to_several_clients() {
        let mut queue = queue(2);
        let [first, _second] = [queue.join(1), queue.join(1)];
        let other = queue.join(2);
        assert_eq!([queue.start(), queue.start(), queue.start()], [Some(first), Some(other), None]);
        assert_eq!((queue.running(), queue.len()), (2, 3));
    }

    #[test]
    fn work_that_leaves_gets_no_turn() {
        let mut queue = queue(1);
        let tickets: Vec<_> = (0..4).map(|_| queue.join(1)).collect();
        queue.end(tickets[1], Duration::ZERO);
        assert_eq!(queue.start(), Some(tickets[0]));
        queue.end(tickets[2], Duration::ZERO);
        queue.end(tickets[0], MILLIS);
        queue.end(tickets[0], MILLIS);
        assert_eq!(queue.start(), Some(tickets[3]));
        queue.end(tickets[3], MILLIS);
        assert!(queue.is_empty() && queue.running() == 0 && queue.tracked_clients() == 0);
    }

    #[test]
    fn endless_newcomers_do_not_starve_a_client() {
        let mut queue = queue(1);
        let busy: Vec<_> = (0..200).map(|_| queue.join(0)).collect();
        for turn in &busy[..100] {
            assert_eq!(queue.start(), Some(*turn));
            queue.end(*turn, 10 * MILLIS);
        }
        let served = (1..20_000).any(|client| {
            queue.join(client);
            let turn = queue.start().unwrap();
            queue.end(turn, MILLIS);
            turn == busy[100]
        });
        assert!(served);
        assert!(queue.tracked_clients() <= FairQueue::<u32>::MAX_IDLE + 2, "{}", queue.tracked_clients());
    }
}
