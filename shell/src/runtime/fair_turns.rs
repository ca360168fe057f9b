//! Expensive computations, such as signatures: a few at a time, in fair turns, and on threads of their own.
//!
//! [`FairQueue`] of the core decides whose turn it is. The threads that serve connections do none of this work, so a flood of
//! it delays only those who ask for it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use session_core::connection_limiter::ClientPrefix;
use session_core::fair_queue::{FairQueue, Ticket};

/// Gives turns to expensive computations.
#[derive(Debug)]
pub struct FairTurns(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    queue: FairQueue<ClientPrefix>,
    /// The tasks that wait for their turn.
    wakers: BTreeMap<Ticket, Waker>,
    started: BTreeSet<Ticket>,
    begun: u64,
}

/// The right to compute, or to wait for it. It ends when dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the turn"]
pub struct Turn {
    turns: Arc<FairTurns>,
    ticket: Ticket,
    used: Duration,
}

impl FairTurns {
    /// Gives this number of turns at a time.
    #[must_use]
    pub fn new(at_a_time: NonZeroUsize) -> Arc<Self> {
        let queue = FairQueue::new(at_a_time);
        Arc::new(Self(Mutex::new(Inner { queue, wakers: BTreeMap::new(), started: BTreeSet::new(), begun: 0 })))
    }

    /// Waits for a turn of this client. Dropping the future gives up the place in the queue.
    pub async fn turn(self: &Arc<Self>, client: ClientPrefix) -> Turn {
        let ticket = self.lock().queue.join(client);
        let turn = Turn { turns: Arc::clone(self), ticket, used: Duration::ZERO };
        self.start();
        poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.started.contains(&ticket) {
                return Poll::Ready(());
            }
            inner.wakers.insert(ticket, cx.waker().clone());
            Poll::Pending
        })
        .await;
        turn
    }

    /// How many computations were begun so far.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// How many turns are waited for or under way.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    fn start(&self) {
        let mut inner = self.lock();
        let mut wakers = Vec::new();
        while let Some(ticket) = inner.queue.start() {
            inner.started.insert(ticket);
            wakers.extend(inner.wakers.remove(&ticket));
        }
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics half-way through a change, so poisoned turns are still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Computes on another thread, and ends the turn.
    pub async fn run<T: Send + 'static>(self, compute: impl FnOnce() -> T + Send + 'static) -> T {
        self.turns.lock().begun += 1;
        smol::unblock(move || {
            // The whole turn moves here, and ends here, also if the computation panics or nobody waits for it any more.
            let mut turn = self;
            let started_at = Instant::now();
            let result = compute();
            turn.used = started_at.elapsed();
            result
        })
        .await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.turns.lock();
        inner.queue.end(self.ticket, self.used);
        inner.wakers.remove(&self.ticket);
        inner.started.remove(&self.ticket);
        drop(inner);
        self.turns.start();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::pin::{Pin, pin};
    use std::task::Context;

    use super::*;
    use crate::runtime::testing::counting_waker;

    fn client(last: u8) -> ClientPrefix {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn poll(turn: Pin<&mut impl Future<Output = Turn>>) -> Poll<Turn> {
        turn.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turn_that_ends_wakes_the_next() {
        let turns = FairTurns::new(NonZeroUsize::MIN);
        let Poll::Ready(first) = poll(pin!(turns.turn(client(1)))) else { panic!("nothing else runs") };
        let (mut second, mut other) = (Box::pin(turns.turn(client(1))), pin!(turns.turn(client(2))));
        let (waker, wakes) = counting_waker();
        assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(poll(other.as_mut()).is_pending());
        assert_eq!((turns.begun(), turns.queued()), (0, 3));
        assert_eq!(smol::block_on(first.run(|| 7)), 7);
        assert_eq!(wakes(), 0, "the other has used less");
        let Poll::Ready(turn) = poll(other) else { panic!("the first client had its turn") };
        drop(turn);
        assert_eq!(wakes(), 1);
        drop(second);
        assert_eq!((turns.begun(), turns.queued()), (1, 0), "a turn that is given up ends, too");
    }

    #[test]
    fn waiting_work_that_is_dropped_is_never_begun() {
        let turns = FairTurns::new(NonZeroUsize::MIN);
        let Poll::Ready(first) = poll(pin!(turns.turn(client(1)))) else { panic!("nothing else runs") };
        for _ in 0..100 {
            assert!(poll(pin!(turns.turn(client(2)))).is_pending());
        }
        drop(first);
        assert_eq!((turns.begun(), turns.queued()), (0, 0));
    }

    #[test]
    fn panic_in_a_computation_ends_its_turn() {
        let turns = FairTurns::new(NonZeroUsize::MIN);
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            smol::block_on(async { turns.turn(client(1)).await.run(|| panic!("on purpose")).await })
        }));
        assert!(panics.is_err());
        smol::block_on(turns.turn(client(2))).used = Duration::ZERO;
        assert_eq!((turns.begun(), turns.queued()), (1, 0));
    }
}
