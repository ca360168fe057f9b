//! A store that several servers share, which keeps its contract and is otherwise hostile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arbitrary::Arbitrary;
use session_core::ledger::{self, Command};
use session_core::{Cause, Limit, Liveness, NodeId, Outcome, SessionId, UserId, UserRecord};
use shell::store::{Done, Store};

/// What the store does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Arbitrary)]
pub enum Fate {
    /// Applies it and answers.
    Apply,
    /// Applies it, and the answer is long in coming.
    ApplySilently,
    /// Applies it, and says that nobody knows.
    ApplyUnknown,
    /// Says that it certainly was not applied.
    Reject,
    /// Does not apply it, and says that nobody knows.
    Drop,
    /// Does not apply it, and says so when nobody waits any more.
    DropSilently,
    /// Says that nobody knows, and applies it later.
    Postpone,
}

/// The highest limit that a token claims.
pub(super) const MAX_CLAIM: u32 = 5;

/// Who is alive is an oracle's word here: from start to kill.
pub(super) struct SharedStore {
    limit: Limit,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    alive: BTreeSet<NodeId>,
    /// Their answers wait until they run again.
    paused: BTreeSet<NodeId>,
    full: bool,
    records: BTreeMap<UserId, UserRecord>,
    /// The naive model of the records.
    model: BTreeMap<UserId, BTreeSet<SessionId>>,
    queue: VecDeque<(Command, Option<Done>)>,
    /// Answers that are long in coming, or that a paused server has not taken.
    late: Vec<(NodeId, Done, Outcome)>,
}

impl SharedStore {
    const MAX_QUEUE: usize = 512;

    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    pub(super) fn start(&self, node: NodeId) {
        self.lock().alive.insert(node);
    }

    /// The node is dead. What it submitted may still be applied; nobody hears of it.
    pub(super) fn kill(&self, node: NodeId) {
        let unheard: Vec<_> = {
            let mut inner = self.lock();
            inner.alive.remove(&node);
            inner.paused.remove(&node);
            let (dead, late) = mem::take(&mut inner.late).into_iter().partition(|&(asker, ..)| asker == node);
            inner.late = late;
            let queued = inner.queue.iter_mut().filter(|(command, _)| command.session().node() == node);
            let queued: Vec<_> = queued.filter_map(|(_, done)| done.take()).collect();
            let dead: Vec<(NodeId, Done, Outcome)> = dead;
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
            let (now, later) = mem::take(&mut inner.late).into_iter().partition(|&(asker, ..)| whose(asker));
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
    pub(super) fn step(&self, which: u8, fate: Fate) -> Option<(Command, Option<Outcome>)> {
        let mut inner = self.lock();
        let mut sessions = BTreeSet::new();
        let heads: Vec<_> = (0..inner.queue.len()).filter(|&at| sessions.insert(inner.queue[at].0.session())).collect();
        let at = *heads.get(usize::from(which) % heads.len().max(1))?;
        if fate == Fate::Postpone {
            let (command, done) = &mut inner.queue[at];
            let (command, done) = (command.clone(), done.take());
            return Some(Self::answer(inner, command, done, Some(Outcome::Unknown), false));
        }
        let (command, done) = inner.queue.remove(at).expect("it is in the queue");
        let applied = match fate {
            Fate::Apply | Fate::ApplySilently | Fate::ApplyUnknown => Some(inner.apply(&command, self.limit)),
            Fate::Reject | Fate::Drop | Fate::DropSilently | Fate::Postpone => None,
        };
        let said = match fate {
            Fate::Apply | Fate::ApplySilently => applied,
            // Whoever was told that nobody knows can be told nothing else.
            Fate::Reject => Some(Outcome::Rejected(Cause::Failed)),
            Fate::ApplyUnknown | Fate::Drop | Fate::DropSilently | Fate::Postpone => Some(Outcome::Unknown),
        };
        let late = matches!(fate, Fate::ApplySilently | Fate::DropSilently);
        Some(Self::answer(inner, command, done, said, late))
    }

    fn answer(
        mut inner: MutexGuard<'_, Inner>,
        command: Command,
        done: Option<Done>,
        said: Option<Outcome>,
        late: bool,
    ) -> (Command, Option<Outcome>) {
        let asker = command.session().node();
        let outcome = said.expect("every fate says something");
        match done {
            None => return (command, None),
            Some(done) if late || inner.paused.contains(&asker) => inner.late.push((asker, done, outcome)),
            Some(done) => {
                drop(inner);
                done.answer(outcome);
                return (command, Some(outcome));
            }
        }
        (command, None)
    }

    /// Every slot of a live node, by user.
    pub(super) fn live_slots(&self) -> Vec<(UserId, SessionId)> {
        let inner = self.lock();
        let slots = inner.records.iter().flat_map(|(user, record)| record.slots().iter().map(move |slot| (user, slot)));
        slots
            .filter(|(_, slot)| inner.alive.contains(&slot.session.node()))
            .map(|(user, slot)| (user.clone(), slot.session))
            .collect()
    }

    /// Checks what must hold of the records at any time.
    pub(super) fn check(&self) {
        let inner = self.lock();
        let mut seen = BTreeSet::new();
        for (user, record) in &inner.records {
            let live = record.slots().iter().filter(|slot| inner.alive.contains(&slot.session.node())).count();
            let most = self.limit.slots().max(MAX_CLAIM);
            assert!(live <= most as usize, "{user} holds {live} slots, no limit is above {most}");
            let model = inner.model.get(user).cloned().unwrap_or_default();
            let slots: BTreeSet<_> = record.slots().iter().map(|slot| slot.session).collect();
            assert_eq!(slots, model, "the record of {user} is not what was granted and not released");
            for slot in record.slots() {
                assert!(seen.insert(slot.session), "session {} has two slots", slot.session);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Applies a command, and holds the rule against the model.
    fn apply(&mut self, command: &Command, limit: Limit) -> Outcome {
        let alive = &self.alive;
        let liveness = |node| if alive.contains(&node) { Liveness::Alive } else { Liveness::Dead };
        let record = self.records.entry(command.user().clone()).or_default();
        let outcome = ledger::apply(record, command, limit, liveness);
        let held = self.model.entry(command.user().clone()).or_default();
        held.retain(|session| alive.contains(&session.node()));
        let session = command.session();
        let count = |held: &BTreeSet<_>| u32::try_from(held.len()).expect("few");
        let expected = match command {
            Command::Acquire { .. } if !alive.contains(&session.node()) => Outcome::Rejected(Cause::Failed),
            Command::Acquire { limit: claim, .. }
                if held.contains(&session) || count(held) < claim.unwrap_or(limit).slots() =>
            {
                held.insert(session);
                Outcome::Granted { connections: count(held) }
            }
            Command::Acquire { .. } => Outcome::Denied,
            Command::Release { .. } => {
                held.remove(&session);
                Outcome::Released
            }
            Command::Lookup { .. } => Outcome::Found { connections: count(held) },
        };
        assert_eq!(outcome, expected, "the rule and the model differ about {command:?}");
        outcome
    }
}

impl Store for SharedStore {
    fn submit(&self, command: Command, done: Done) {
        let mut inner = self.lock();
        if !inner.alive.contains(&command.session().node()) {
            // A dead process submits nothing; only what it leaves behind is taken apart.
            drop(inner);
            drop(done);
            return;
        }
        let is_release = matches!(command, Command::Release { .. });
        let refused = match () {
            () if is_release => None,
            () if inner.full && matches!(command, Command::Acquire { .. }) => Some(Cause::Full),
            () if inner.queue.len() >= Self::MAX_QUEUE => Some(Cause::Overloaded),
            () => None,
        };
        match refused {
            None => inner.queue.push_back((command, Some(done))),
            Some(cause) => {
                drop(inner);
                done.answer(Outcome::Rejected(cause));
            }
        }
    }

    fn set_limit(&self, _limit: Limit) {
        unreachable!("the simulated servers are never told another limit");
    }

    fn close(&self, _within: Duration) -> bool {
        true
    }
}
