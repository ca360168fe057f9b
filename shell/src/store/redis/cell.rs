//! A bucket, and what waits for its answers.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use session_core::cluster::{
    Bucket, BucketActions, BucketEvent, CallId, FenceReason, OverridesOutcome, Request, RequestId,
};
use session_core::ledger::{EndedSession, Outcome, StoreCommand, UserOverrides};
use session_core::{SessionId, Timestamp, UserId};

use super::command::BucketNames;
use crate::runtime::events::log_limited;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::notifier::{log_displaced, log_lapsed};
use crate::store::shared::NodeContext;
use crate::store::user_state::{SeenState, UserState};

static LOG: LogRateLimiter = LogRateLimiter::new();

/// A bucket, which any thread may hand events to.
pub(super) struct Cell {
    number: u16,
    pub(super) names: BucketNames,
    context: NodeContext,
    state: Mutex<CellState>,
    /// Until when this node may serve the bucket's sessions, in nanoseconds since the epoch. 0 if it may not.
    serves_until: AtomicU64,
    /// When the bucket has to be looked at again.
    deadline: AtomicU64,
}

struct CellState {
    bucket: Bucket,
    last_call: u64,
    commands: HashMap<CallId, Completion<Outcome>>,
    updates: HashMap<CallId, Completion<Result<UserState, StoreFailure>>>,
    /// What is to be sent.
    requests: Vec<(RequestId, Request)>,
    /// The number of the connection that the bucket is on, and how many it has been on.
    link: u64,
    epoch: u64,
    has_left: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub(super) struct Handled {
    /// Whether there is something to send.
    pub has_requests: bool,
    /// Whether all sessions of the bucket have ended: the node needs another id.
    pub is_fenced: bool,
}

impl Cell {
    pub(super) fn new(number: u16, names: BucketNames, bucket: Bucket, context: NodeContext) -> Self {
        let state = CellState {
            bucket,
            last_call: 0,
            commands: HashMap::new(),
            updates: HashMap::new(),
            requests: Vec::new(),
            link: 0,
            epoch: 0,
            has_left: false,
        };
        Self {
            number,
            names,
            context,
            state: Mutex::new(state),
            serves_until: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
        }
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    fn now(&self) -> Timestamp {
        self.context.clock().now()
    }

    fn lock(&self) -> MutexGuard<'_, CellState> {
        // A panic within ends the process: its thread is watched, or the panic is a session's, and the bucket has not panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the bucket, and does what it wants.
    pub(super) fn handle(&self, event: BucketEvent) -> Handled {
        let mut state = self.lock();
        self.handle_locked(&mut state, event)
    }

    fn handle_locked(&self, state: &mut CellState, event: BucketEvent) -> Handled {
        let now = self.now();
        let BucketActions { requests, outcomes, overrides, ended, lapsed, displaced, hints, fenced, cut } =
            state.bucket.handle(event, now);
        if let Some(reason) = fenced {
            self.serves_until.store(0, Ordering::SeqCst);
            self.context.cut(&cut);
            if !cut.is_empty() {
                let reason = match reason {
                    FenceReason::NotConfirmed => "the store has not confirmed for node_fence that this server is alive",
                    FenceReason::Buried => "another server has declared this one dead",
                };
                log_limited!(LOG, node_fenced { part: self.number, sessions: cut.len(), reason });
            }
        }
        for of_user in ended.chunk_by(|(one, _), (other, _)| one == other) {
            if let [(user, _), ..] = of_user {
                self.context.notify(user, of_user.iter().map(|(_, ended)| ended.clone()).collect());
            }
        }
        for (user, session) in lapsed {
            log_lapsed(&user, session);
        }
        for (user, EndedSession { session, reason }) in displaced {
            log_displaced(&user, session, &reason);
        }
        for (call, outcome) in outcomes {
            if let Some(completion) = state.commands.remove(&call) {
                completion.answer(outcome);
            }
        }
        for (call, outcome) in overrides {
            if let Some(completion) = state.updates.remove(&call) {
                completion.answer(match outcome {
                    OverridesOutcome::Set { before } => Ok(UserState { overrides: before, seen: SeenState::Never }),
                    OverridesOutcome::Rejected(error) => Err(StoreFailure::Rejected(error)),
                    OverridesOutcome::Unknown => Err(StoreFailure::InDoubt),
                });
            }
        }
        self.context.hint(hints);
        let has_requests = !requests.is_empty();
        state.requests.extend(requests);
        self.note_times(state);
        Handled { has_requests, is_fenced: fenced.is_some() }
    }

    fn note_times(&self, state: &CellState) {
        let CellState { bucket, has_left, .. } = state;
        if *has_left {
            self.serves_until.store(0, Ordering::SeqCst);
            return self.deadline.store(u64::MAX, Ordering::SeqCst);
        }
        let serves_until = bucket.membership().serves_until().map_or(0, nanos);
        self.serves_until.store(serves_until, Ordering::SeqCst);
        self.deadline.store(bucket.deadline().map_or(u64::MAX, nanos), Ordering::SeqCst);
    }

    /// Hands a session's command to the bucket.
    pub(super) fn submit(&self, command: StoreCommand, completion: Completion<Outcome>) -> Handled {
        let mut state = self.lock();
        state.last_call += 1;
        let call = CallId(state.last_call);
        state.commands.insert(call, completion);
        self.handle_locked(&mut state, BucketEvent::Submit(call, command))
    }

    /// Hands an operator's change to the bucket.
    pub(super) fn set_overrides(
        &self,
        user: UserId,
        overrides: UserOverrides,
        completion: Completion<Result<UserState, StoreFailure>>,
    ) -> Handled {
        let mut state = self.lock();
        state.last_call += 1;
        let call = CallId(state.last_call);
        state.updates.insert(call, completion);
        self.handle_locked(&mut state, BucketEvent::SetOverrides(call, user, overrides))
    }

    /// Marks a session as told, if it may be.
    pub(super) fn tell(&self, user: &UserId, session: SessionId) -> bool {
        self.lock().bucket.tell(user, session, self.now())
    }

    /// Whether this node may serve the bucket's sessions now.
    pub(super) fn may_serve(&self) -> bool {
        nanos(self.now()) < self.serves_until.load(Ordering::SeqCst)
    }

    /// When that may end, in nanoseconds since the epoch. 0 if it may not.
    pub(super) fn serves_until(&self) -> u64 {
        self.serves_until.load(Ordering::SeqCst)
    }

    /// When the bucket has to be looked at again, in nanoseconds since the epoch.
    pub(super) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::SeqCst)
    }

    /// Takes what is to be sent on this connection. Nothing, if the bucket is on another one.
    pub(super) fn take_requests(&self, link: u64) -> Vec<(RequestId, Request)> {
        let mut state = self.lock();
        if state.link == link { mem::take(&mut state.requests) } else { Vec::new() }
    }

    /// From now on the bucket is on this connection. If that is another one, what was to be sent on the one before is not.
    pub(super) fn reconnected(&self, link: u64) -> Option<Handled> {
        let mut state = self.lock();
        if state.link == link {
            return None;
        }
        (state.link, state.epoch) = (link, state.epoch + 1);
        state.requests.clear();
        let epoch = state.epoch;
        Some(self.handle_locked(&mut state, BucketEvent::Reconnected(epoch)))
    }

    /// Takes this node out of the bucket, once nothing is left to do: `None` until then.
    pub(super) fn leave(&self) -> Option<Handled> {
        let mut state = self.lock();
        if state.has_left {
            return Some(Handled::default());
        }
        state.has_left = state.bucket.is_idle();
        state.has_left.then(|| self.handle_locked(&mut state, BucketEvent::Leaves))
    }

    /// Whether this node has left the bucket.
    pub(super) fn has_left(&self) -> bool {
        self.lock().has_left
    }

    /// Looks at the bucket.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Bucket) -> T) -> T {
        look(&self.lock().bucket)
    }

    /// Changes the policy for users without overrides.
    pub(super) fn set_policy(&self, policy: session_core::ledger::AdmissionPolicy) {
        self.lock().bucket.set_policy(policy);
    }
}

/// Nanoseconds since the epoch.
pub(super) fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.since_epoch().as_nanos()).unwrap_or(u64::MAX)
}
