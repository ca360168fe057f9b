//! A store that several servers share, which keeps its contract and is otherwise faulty.

mod races;
mod node_store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arbitrary::Arbitrary;
use session_core::ledger::{self, ApplyResult, EndTarget, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, EndReason, EndedSession, Liveness, Outcome, SessionHint, SessionRecord, SessionStatus, SlotLimit,
    StoreError, UserRecord,
};
use session_core::{NodeId, SessionId, Timestamp, UserId};
use shell::runtime::process::Process;
use shell::store::{Completion, NodeContext};

use self::node_store::NodeStore;
use crate::line_oracle::LineOracle;
use crate::rule_oracle;
use crate::told_oracle::ToldOracle;

/// What the store does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Arbitrary)]
pub enum StoreFault {
    /// Applies it and answers.
    Apply,
    /// Applies it, and the answer is long in coming.
    ApplySilently,
    /// Applies the command and answers `Unknown`.
    ApplyUnknown,
    /// Says that it certainly was not applied.
    Reject,
    /// Does not apply the command and answers `Unknown`.
    Drop,
    /// Does not apply the command, and answers so after the timeout.
    DropSilently,
    /// Answers `Unknown` and applies the command later.
    Postpone,
    /// Does not apply the command, answers `Unknown`, and notifies the sessions that it would have ended: what a
    /// store does whose commit ends in doubt.
    Doubt,
    /// Begins to apply the command, and goes on at a later step. From now on its caller cannot withdraw it.
    Begin,
}

impl StoreFault {
    /// Its name, for counting.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Apply => "applied",
            Self::ApplySilently => "applied, answered late",
            Self::ApplyUnknown => "applied, answered unknown",
            Self::Reject => "rejected",
            Self::Drop => "dropped, answered unknown",
            Self::DropSilently => "dropped, answered late",
            Self::Postpone => "answered unknown, applied late",
            Self::Doubt => "dropped, told as if applied",
            Self::Begin => "begun, applied later",
        }
    }
}

/// The highest limit that a token claims.
pub(super) const MAX_CLAIM: u32 = 5;

/// It knows which nodes are alive: from start to kill.
///
/// The servers' clocks differ. If sessions lingered by the clock of the server that wrote them, the worst clock would decide.
/// So this store has one clock, as a shared store has, and corrects the time of each command by the difference between the
/// server's clock and its own.
pub(super) struct SharedStore {
    inner: Mutex<Inner>,
}

struct Inner {
    policy: AdmissionPolicy,
    /// The time by the store's clock.
    now: Timestamp,
    alive: BTreeSet<NodeId>,
    /// Since when the others are dead.
    deaths: BTreeMap<NodeId, Timestamp>,
    /// Since when each node serves. The nodes do not know of one another, so each decides with its own start.
    starts: BTreeMap<NodeId, Timestamp>,
    /// What the live nodes' stores know, with whom to notify.
    contexts: BTreeMap<NodeId, NodeContext>,
    told: ToldOracle,
    line: LineOracle,
    /// Hints reach nobody.
    loses_hints: bool,
    /// The sessions that lost their slots to a command of another session.
    ended: BTreeSet<SessionId>,
    /// How often something was reached that is hard to reach.
    counts: BTreeMap<&'static str, u64>,
    /// Their answers wait until they run again.
    paused: BTreeSet<NodeId>,
    full: bool,
    records: BTreeMap<UserId, UserRecord>,
    queue: VecDeque<Queued>,
    /// Answers that are long in coming, or that a paused server has not taken.
    late: Vec<(SessionId, Completion<Outcome>, Outcome)>,
}

/// A command that the store has not applied.
struct Queued {
    command: StoreCommand,
    /// `None` once it is answered, or if no one waits.
    completion: Option<Completion<Outcome>>,
    /// The store has begun to apply it.
    has_begun: bool,
}

/// What the store did in a step.
pub(super) struct StoreStep {
    pub(super) command: StoreCommand,
    /// The answer, if it was given.
    pub(super) outcome: Option<Outcome>,
    pub(super) progress: Progress,
}

/// How far a step came with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its caller had withdrawn it.
    Withdrawn,
    /// The store began to apply it for a caller that still waited.
    Begun,
    /// The store had begun before, or no one waited from the start, or it did not begin.
    Other,
}

impl SharedStore {
    const MAX_QUEUE: usize = 512;

    pub(super) fn new(policy: AdmissionPolicy, now: Timestamp) -> Self {
        Self {
            inner: Mutex::new(Inner {
                policy,
                now,
                alive: BTreeSet::new(),
                deaths: BTreeMap::new(),
                starts: BTreeMap::new(),
                contexts: BTreeMap::new(),
                told: ToldOracle::default(),
                line: LineOracle::default(),
                loses_hints: false,
                ended: BTreeSet::new(),
                counts: BTreeMap::new(),
                paused: BTreeSet::new(),
                full: false,
                records: BTreeMap::new(),
                queue: VecDeque::new(),
                late: Vec::new(),
            }),
        }
    }

    /// The store as a node that starts now opens it.
    pub(super) fn open(self: &Arc<Self>, node: NodeId, process: Process) -> Arc<NodeStore> {
        let mut inner = self.lock();
        let context = NodeContext::new(node, inner.policy, process);
        inner.alive.insert(node);
        let now = inner.now;
        inner.starts.insert(node, now);
        inner.contexts.insert(node, context.clone());
        Arc::new(NodeStore { shared: Arc::clone(self), context })
    }

    pub(super) fn set_now(&self, now: Timestamp) {
        self.lock().now = now;
    }

    pub(super) fn set_limit(&self, limit: SlotLimit) {
        self.lock().policy.limit = limit;
    }

    /// Whether hints reach nobody from now on.
    pub(super) fn set_loses_hints(&self, loses_hints: bool) {
        self.lock().loses_hints = loses_hints;
    }

    /// Whether this session lost its slot to a command of another session.
    pub(super) fn has_ended(&self, session: SessionId) -> bool {
        self.lock().ended.contains(&session)
    }

    /// Checks the clients of one server that were told that they are in, and are served.
    pub(super) fn check_told(&self, served: Vec<SessionId>) {
        self.lock().told.check(served);
    }

    pub(super) fn take_counts(&self) -> BTreeMap<&'static str, u64> {
        mem::take(&mut self.lock().counts)
    }

    /// Whether a user holds more than the limit that is set now.
    pub(super) fn is_beyond_limit(&self, user: &UserId) -> bool {
        let inner = self.lock();
        inner.records.get(user).is_some_and(|record| record.sessions().len() > inner.policy.limit.slots() as usize)
    }

    /// Has an operator end who is beyond the limit.
    pub(super) fn enforce(&self, user: UserId) {
        let mut inner = self.lock();
        let Some(&node) = inner.alive.first() else { return };
        let which = EndTarget::Excess { limit: inner.policy.limit, dry_run: false };
        let session = node.session(0);
        let command =
            StoreCommand::EndSessions { user, session, target: which, reason: EndReason::ByOperator, at: inner.now };
        inner.queue.push_back(Queued { command, completion: None, has_begun: true });
    }

    /// Removes lapsed sessions from records that no command touches.
    pub(super) fn sweep(&self) {
        let mut inner = self.lock();
        let (now, alive, deaths) = (inner.now, inner.alive.clone(), inner.deaths.clone());
        for record in inner.records.values_mut() {
            ledger::remove_lapsed(record, now, |node| liveness(&alive, &deaths, node));
        }
    }

    /// Every session in the record of a user.
    pub(super) fn holds_of(&self, user: &UserId) -> Vec<SessionRecord> {
        self.lock().records.get(user).map_or_else(Vec::new, |record| record.sessions().to_vec())
    }

    /// Marks the node as dead. Its commands may still be applied. Their answers reach no session.
    pub(super) fn kill(&self, node: NodeId) {
        let unheard: Vec<_> = {
            let mut inner = self.lock();
            inner.alive.remove(&node);
            inner.paused.remove(&node);
            inner.contexts.remove(&node);
            let now = inner.now;
            inner.deaths.insert(node, now);
            let (dead, late) = mem::take(&mut inner.late).into_iter().partition(|&(asker, ..)| asker.node() == node);
            inner.late = late;
            let queued = inner.queue.iter_mut().filter(|queued| queued.command.session().node() == node);
            let queued: Vec<_> = queued.filter_map(|queued| queued.completion.take()).collect();
            let dead: Vec<(SessionId, Completion<Outcome>, Outcome)> = dead;
            dead.into_iter().map(|(_, done, _)| done).chain(queued).collect()
        };
        // What they answer when they are dropped goes to a process that is no more.
        drop(unheard);
    }

    pub(super) fn pause(&self, node: NodeId) {
        self.lock().paused.insert(node);
    }

    pub(super) fn resume(&self, node: NodeId) {
        self.lock().paused.remove(&node);
        self.answer_late(|asker| asker == node);
    }

    pub(super) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Gives the answers that are late, but for those to servers that are paused.
    pub(super) fn answer_all_late(&self) {
        let paused = self.lock().paused.clone();
        self.answer_late(|asker| !paused.contains(&asker));
    }

    fn answer_late(&self, whose: impl Fn(NodeId) -> bool) {
        let late: Vec<_> = {
            let mut inner = self.lock();
            let (now, later) = mem::take(&mut inner.late).into_iter().partition(|&(asker, ..)| whose(asker.node()));
            inner.late = later;
            now
        };
        for (_, done, outcome) in late {
            done.answer(outcome);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// Gets on with a command that no earlier one of its session waits before. Says which, and what came of it.
    pub(super) fn step(&self, which: u8, fault: StoreFault) -> Option<StoreStep> {
        let mut inner = self.lock();
        let mut sessions = BTreeSet::new();
        let heads: Vec<_> =
            (0..inner.queue.len()).filter(|&at| sessions.insert(inner.queue[at].command.session())).collect();
        let at = *heads.get(usize::from(which) % heads.len().max(1))?;
        let mut progress = Progress::Other;
        let queued = &mut inner.queue[at];
        if let (false, Some(completion)) = (queued.has_begun, &mut queued.completion)
            && fault != StoreFault::Reject
        {
            if !completion.claim() {
                let Queued { command, .. } = inner.queue.remove(at).expect("it is in the queue");
                return Some(StoreStep { command, outcome: None, progress: Progress::Withdrawn });
            }
            (queued.has_begun, progress) = (true, Progress::Begun);
        }
        match fault {
            StoreFault::Begin => {
                return Some(StoreStep { command: queued.command.clone(), outcome: None, progress });
            }
            StoreFault::Postpone => {
                let (command, completion) = (queued.command.clone(), queued.completion.take());
                return Some(Self::answer(inner, command, completion, Outcome::Unknown, false, progress));
            }
            StoreFault::Apply
            | StoreFault::ApplySilently
            | StoreFault::ApplyUnknown
            | StoreFault::Reject
            | StoreFault::Drop
            | StoreFault::DropSilently
            | StoreFault::Doubt => {}
        }
        let Queued { command, completion, .. } = inner.queue.remove(at).expect("it is in the queue");
        let said = match fault {
            StoreFault::Apply | StoreFault::ApplySilently => inner.apply(&command, true),
            StoreFault::ApplyUnknown => {
                inner.apply(&command, true);
                Outcome::Unknown
            }
            StoreFault::Doubt => {
                inner.apply(&command, false);
                Outcome::Unknown
            }
            StoreFault::Reject => Outcome::Rejected(StoreError::Failed),
            // After `Unknown` there is no other answer.
            StoreFault::Drop | StoreFault::DropSilently | StoreFault::Postpone | StoreFault::Begin => Outcome::Unknown,
        };
        let late = matches!(fault, StoreFault::ApplySilently | StoreFault::DropSilently);
        Some(Self::answer(inner, command, completion, said, late, progress))
    }

    fn answer(
        mut inner: MutexGuard<'_, Inner>,
        command: StoreCommand,
        completion: Option<Completion<Outcome>>,
        outcome: Outcome,
        late: bool,
        progress: Progress,
    ) -> StoreStep {
        let asker = command.session();
        let given = match completion {
            None => None,
            Some(completion) if late || inner.paused.contains(&asker.node()) => {
                inner.late.push((asker, completion, outcome));
                None
            }
            Some(completion) => {
                drop(inner);
                completion.answer(outcome.clone());
                Some(outcome)
            }
        };
        StoreStep { command, outcome: given, progress }
    }

    /// Every slot of a live node that is held, by user. Not those that linger.
    pub(super) fn live_slots(&self) -> Vec<(UserId, SessionId)> {
        let inner = self.lock();
        let slots =
            inner.records.iter().flat_map(|(user, record)| record.sessions().iter().map(move |slot| (user, slot)));
        slots
            .filter(|(_, slot)| inner.alive.contains(&slot.session.node()) && slot.status == SessionStatus::Live)
            .map(|(user, slot)| (user.clone(), slot.session))
            .collect()
    }

    /// Every session of a live node that waits in line.
    pub(super) fn in_line(&self) -> Vec<SessionId> {
        let inner = self.lock();
        let waiting = inner.records.values().flat_map(UserRecord::waiting).map(|waiter| waiter.session);
        waiting.filter(|session| inner.alive.contains(&session.node())).collect()
    }

    /// The sessions in line that would find a slot now.
    pub(super) fn called(&self) -> BTreeSet<SessionId> {
        let inner = self.lock();
        let called = inner.records.values().flat_map(|record| {
            let mut record = record.clone();
            let _lapsed =
                ledger::remove_lapsed(&mut record, inner.now, |node| liveness(&inner.alive, &inner.deaths, node));
            ledger::called(&record, &inner.policy, inner.now)
        });
        called.collect()
    }

    /// Checks what must hold of the records at any time.
    pub(super) fn check(&self) {
        let inner = self.lock();
        let mut seen = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for waiter in inner.records.values().flat_map(UserRecord::waiting) {
            assert!(seen.insert(waiter.session), "session {} waits twice", waiter.session);
        }
        for entry in inner.records.values().flat_map(UserRecord::sessions) {
            assert!(seen.insert(entry.session), "session {} holds two slots, or waits beside", entry.session);
            if let Some(resumable) = entry.resumable() {
                assert!(keys.insert(resumable.key.to_bytes()), "one token for two holds");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Applies a command by the store's clock, checks the result, and notifies the sessions that lost their slots; perhaps without
    /// keeping what came of it.
    fn apply(&mut self, command: &StoreCommand, keep: bool) -> Outcome {
        let mut command = command.clone();
        match &mut command {
            StoreCommand::Acquire { at, .. }
            | StoreCommand::Linger { at, .. }
            | StoreCommand::CountSlots { at, .. }
            | StoreCommand::ListSessions { at, .. }
            | StoreCommand::EndSessions { at, .. }
            | StoreCommand::Renew { at, .. } => *at = self.now,
            StoreCommand::Release { .. } => {}
        }
        let (alive, deaths) = (&self.alive, &self.deaths);
        let liveness = |node| liveness(alive, deaths, node);
        let record = self.records.entry(command.user().clone()).or_default();
        let before = record.clone();
        let serving_since = self.starts.get(&command.session().node()).copied().unwrap_or_default();
        let policy = AdmissionPolicy { serving_since, ..self.policy };
        let result = ledger::apply(command.user(), record, &command, &policy, liveness);
        rule_oracle::check(&before, &command, &policy, liveness, &result, record);
        let mut reached = None;
        if keep {
            self.told.applied(&command, &policy, &result.outcome, record);
            let is_alive = |node| alive.contains(&node);
            reached = self.line.applied(&command, &policy, is_alive, &result, (&before, record));
        }
        let ApplyResult { outcome, ended, hints, .. } = result;
        if !keep {
            *record = before.clone();
        }
        self.count(&command, &before, &policy, &outcome, &ended);
        reached.into_iter().for_each(|what| self.reach(what));
        for EndedSession { session, reason } in ended {
            self.ended.insert(session);
            if let Some(context) = self.contexts.get(&session.node()) {
                context.notify(command.user(), vec![EndedSession { session, reason }]);
            }
        }
        self.pass_hints_on(hints);
        outcome
    }

    fn pass_hints_on(&mut self, hints: Vec<SessionHint>) {
        for hint in hints {
            if self.loses_hints {
                self.reach("hint lost");
            } else if let Some(context) = self.contexts.get(&hint.session.node()) {
                context.hint(vec![hint]);
                self.reach("hint passed on");
            }
        }
    }

    fn reach(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }
}

fn liveness(alive: &BTreeSet<NodeId>, deaths: &BTreeMap<NodeId, Timestamp>, node: NodeId) -> Liveness {
    if alive.contains(&node) {
        Liveness::Alive
    } else {
        Liveness::DeadSince(deaths.get(&node).copied().unwrap_or_default())
    }
}
