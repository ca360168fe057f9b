//! What a node does in one bucket: it turns commands into requests to the shared store, and answers into outcomes.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use super::io::{BucketActions, BucketEvent, RequestId};
use super::membership::{Membership, MembershipActions, MembershipEvent};
use super::own_session::{CallId, OwnSession};
use super::shared_store::{Answer, AnswerBody, GenerationId, HistoryId, PageAnswer, RecordAnswer, Request};
use super::timing::ClusterTiming;
use super::user_state::{Call, FoldContext, KnownRecord, UnderWay, UserActions, UserState};
use super::walk::Walk;
use super::write::{stamp, write};
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{AdmissionPolicy, Outcome, SessionStatus, StoreCommand, StoreError, UserRecord};
use crate::time::Timestamp;

/// One node in one bucket of a cluster.
///
/// It does what a store does for the users of the bucket, with requests to a store that it shares with other nodes. The caller
/// carries the requests to that store and the answers back, on one connection at a time.
///
/// # What the caller has to do
///
/// - Ask [`Bucket::may_serve`] before each message to a client of the bucket, at the time of sending.
/// - Before it tells a client that it has a slot, ask [`Bucket::tell`], and tell it only if that returns `true`, with nothing in
///   between. Otherwise the slot is lost, and the session has to be released.
/// - After [`BucketActions::ended`], report the session with [`BucketEvent::Closed`], or submit its release, once its client is
///   served no more.
/// - After [`BucketActions::fenced`], close all connections of the bucket's users at once, and send
///   [`BucketEvent::Joins`] with another id.
/// - Report a session that was denied or rejected, and ends, to nobody: it has nothing.
#[derive(Debug)]
pub struct Bucket {
    policy: AdmissionPolicy,
    capacity: usize,
    membership: Membership,
    users: BTreeMap<UserId, UserState>,
    /// The requests that are not answered, and what they are about.
    requests: BTreeMap<RequestId, Asked>,
    last_request: u64,
    last_stamp: u64,
    /// The number of the connection to the store.
    epoch: u64,
    /// Whether a write of an older connection may still arrive.
    needs_floor: bool,
    walk: Walk,
    /// The number of commands that are not answered.
    unanswered: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Beat,
    Floor,
    User(UserId),
    Scan,
    /// What becomes of it is seen in the next beat.
    Other,
}

impl Bucket {
    /// A node with this id that joins a bucket. `former` is the id that it had before it was restarted, if it knows it and has
    /// made sure that no such process is left. `capacity` is the number of commands that may wait for their answers; acquires may
    /// take three quarters of it, and releases are always taken.
    #[must_use]
    pub fn new(
        node: NodeId,
        former: Option<NodeId>,
        policy: AdmissionPolicy,
        timing: ClusterTiming,
        capacity: usize,
        now: Timestamp,
    ) -> Self {
        Self {
            policy,
            capacity,
            membership: Membership::new(node, former, timing, now),
            users: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_request: 0,
            last_stamp: 0,
            epoch: 0,
            needs_floor: false,
            walk: Walk::default(),
            unanswered: 0,
        }
    }

    /// Whether the node may serve sessions of the bucket.
    #[must_use]
    pub fn may_serve(&self, now: Timestamp) -> bool {
        self.membership.may_serve(now)
    }

    /// The membership of the node.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// When [`BucketEvent::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.membership.deadline()
    }

    /// Replaces the policy. It holds for commands that are decided from now on.
    pub const fn set_policy(&mut self, policy: AdmissionPolicy) {
        self.policy = policy;
    }

    /// Whether nothing is left to do: no session of this node has a slot or waits for one, no command is undecided, and no entry of
    /// this node can be left in the generation in force.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.users.values().all(UserState::is_idle) && !self.needs_floor && self.is_scrubbed()
    }

    /// Whether the store has no entry of this node that no session stands behind. If it has forgotten a release, the walk finds
    /// out, as long as the node has its id.
    fn is_scrubbed(&self) -> bool {
        self.membership.may_admit() && self.walk.is_over() && !self.users.values().any(|state| state.must_tidy)
    }

    /// Marks the session as told, if it may be: it was granted a slot in the generation in force, and still has it.
    #[must_use = "if it is false, the client must not be told"]
    pub fn tell(&mut self, user: &UserId, session: SessionId, now: Timestamp) -> bool {
        if !self.may_serve(now) {
            return false;
        }
        let Some(own) = self.users.get_mut(user).and_then(|state| state.sessions.get_mut(&session)) else {
            return false;
        };
        let OwnSession::Ready(entry) = own else { return false };
        *own = OwnSession::Told { entry: entry.clone(), is_asserted: true };
        true
    }

    /// Takes a command back that has not been sent. Returns `false` if it may be applied, or was answered.
    #[must_use = "if it is false, the command may be applied"]
    pub fn withdraw(&mut self, user: &UserId, call: CallId) -> bool {
        let Some(state) = self.users.get_mut(user) else { return false };
        let is_withdrawn = state.withdraw(call);
        self.unanswered -= usize::from(is_withdrawn);
        self.forget_if_idle(user);
        is_withdrawn
    }

    /// Takes an event.
    pub fn handle(&mut self, event: BucketEvent, now: Timestamp) -> BucketActions {
        let mut actions = BucketActions::default();
        // The fence comes before everything else.
        self.member(MembershipEvent::Tick, now, &mut actions);
        match event {
            BucketEvent::Tick => {}
            BucketEvent::Submit(call, command) => self.submit(call, command, now, &mut actions),
            BucketEvent::Answered(request, answer) => self.answered(request, answer, now, &mut actions),
            BucketEvent::Reconnected(epoch) => self.reconnected(epoch, now, &mut actions),
            BucketEvent::Hinted(user) => self.read_again(&user, now, &mut actions),
            BucketEvent::Closed(user, session) => {
                let mut told = UserActions::default();
                if let Some(state) = self.users.get_mut(&user) {
                    state.close(session, false, &mut told);
                }
                self.pass_on(told, &mut actions);
                // Another session of this node may have waited for it.
                self.look(&user, now, &mut actions);
                self.drive(&user, false, now, &mut actions);
            }
            BucketEvent::Joins(node) => self.member(MembershipEvent::Joins(node), now, &mut actions),
            BucketEvent::Leaves => {
                let ids: Vec<_> = self.membership.ids().collect();
                for node in ids {
                    self.member(MembershipEvent::Leaves(node), now, &mut actions);
                }
            }
        }
        actions
    }

    fn submit(&mut self, call: CallId, command: StoreCommand, now: Timestamp, actions: &mut BucketActions) {
        let session = command.session();
        let is_own = self.membership.ids().any(|node| node == session.node());
        let is_acquire = matches!(command, StoreCommand::Acquire { .. });
        let room = if is_acquire { self.capacity / 4 * 3 } else { self.capacity };
        let outcome = if command.is_release() {
            // What was fenced has nothing to give back.
            (!is_own).then_some(Outcome::Released)
        } else if is_acquire && !self.membership.is_own(session.node()) {
            // To the others the slot of a node that has not joined is that of a dead one.
            Some(Outcome::Rejected(StoreError::Failed))
        } else {
            (self.unanswered >= room).then_some(Outcome::Rejected(StoreError::Overloaded))
        };
        if let Some(outcome) = outcome {
            actions.outcomes.push((call, outcome));
            return;
        }
        let user = command.user().clone();
        let state = self.users.entry(user.clone()).or_default();
        let mut told = UserActions::default();
        if command.is_release() {
            state.close(session, matches!(command, StoreCommand::Linger { .. }), &mut told);
        } else if is_acquire {
            state.sessions.entry(session).or_insert(OwnSession::Asking { is_in_line: false });
        }
        state.queue.push(Call { id: call, command, may_be_applied: false });
        self.unanswered += 1;
        self.pass_on(told, actions);
        self.look(&user, now, actions);
        self.drive(&user, false, now, actions);
    }

    /// Hands an event to the membership, and does what it wants.
    fn member(&mut self, event: MembershipEvent, now: Timestamp, actions: &mut BucketActions) {
        let MembershipActions { requests, fenced, is_new_generation, has_opened, has_looked, inbox } =
            self.membership.handle(event, now);
        if fenced.is_some() {
            actions.fenced = fenced;
            self.fence(actions);
        }
        for request in requests {
            let asked = if matches!(request, Request::Beat { .. }) { Asked::Beat } else { Asked::Other };
            self.send(request, asked, actions);
        }
        if is_new_generation {
            let mut told = UserActions::default();
            self.users.values_mut().for_each(|state| state.forget(&mut told));
            self.walk.forget();
            self.pass_on(told, actions);
        }
        if has_opened {
            self.walk.begin(self.membership.dead());
        }
        for (user, _) in inbox {
            self.users.entry(user).or_default().must_read = true;
        }
        if has_looked {
            self.after_beat(now, actions);
        }
    }

    /// What waits for the answer to a beat: the floor, the re-assertion, the walk, and grants that wait for the dead.
    fn after_beat(&mut self, now: Timestamp, actions: &mut BucketActions) {
        self.raise_floor(actions);
        let users: Vec<_> = self.users.keys().cloned().collect();
        for user in users {
            if let Some(state) = self.users.get_mut(&user) {
                // Hints may be lost.
                state.must_read |= state.has_grants();
            }
            self.look(&user, now, actions);
            self.drive(&user, false, now, actions);
        }
        self.check_asserted(now, actions);
        if self.membership.is_sweeper() {
            self.walk.begin_if_dead(self.membership.dead());
        }
        self.scan(actions);
        let ids: Vec<_> = self.membership.ids().collect();
        let (_, older) = ids.split_last().unwrap_or((&NodeId::new(0), &[]));
        for &node in older {
            if self.is_scrubbed() && !self.users.values().any(|state| state.concerns(node)) {
                self.member(MembershipEvent::Leaves(node), now, actions);
            }
        }
    }

    fn check_asserted(&mut self, now: Timestamp, actions: &mut BucketActions) {
        if !self.membership.is_reasserted() && !self.users.values().any(UserState::must_restore) {
            self.member(MembershipEvent::Reasserted, now, actions);
        }
    }

    fn fence(&mut self, actions: &mut BucketActions) {
        let mut told = UserActions::default();
        for state in mem::take(&mut self.users).into_values() {
            state.fence(&mut told);
        }
        self.requests.clear();
        self.unanswered = 0;
        (self.needs_floor, self.walk) = (false, Walk::default());
        actions.outcomes.extend(told.outcomes);
    }

    fn reconnected(&mut self, epoch: u64, now: Timestamp, actions: &mut BucketActions) {
        self.epoch = epoch;
        for asked in mem::take(&mut self.requests).into_values() {
            match asked {
                Asked::Beat => self.member(MembershipEvent::BeatLost, now, actions),
                Asked::User(user) => {
                    let Some(state) = self.users.get_mut(&user) else { continue };
                    match state.under_way.take() {
                        Some(UnderWay::Write(decision)) => {
                            state.undo(*decision, true);
                            (state.known, self.needs_floor) = (None, true);
                        }
                        Some(UnderWay::Read) | None => {}
                    }
                    state.must_read = true;
                }
                Asked::Scan => self.walk.page_lost(),
                Asked::Floor | Asked::Other => {}
            }
        }
        self.raise_floor(actions);
        self.drive_all(now, actions);
        self.scan(actions);
    }

    fn raise_floor(&mut self, actions: &mut BucketActions) {
        let is_under_way = self.requests.values().any(|asked| *asked == Asked::Floor);
        if self.needs_floor && !is_under_way {
            let nodes = self.membership.ids().collect();
            self.send(Request::RaiseFloor { nodes, epoch: self.epoch }, Asked::Floor, actions);
        }
    }

    fn answered(&mut self, request: RequestId, answer: Answer, now: Timestamp, actions: &mut BucketActions) {
        let Some(asked) = self.requests.remove(&request) else { return };
        let Answer { history, body } = answer;
        match (asked, body) {
            (Asked::Beat, AnswerBody::Beat(answer)) => {
                self.member(MembershipEvent::BeatAnswered(*answer), now, actions)
            }
            (Asked::Floor, AnswerBody::Done(is_done)) => {
                self.needs_floor &= !(is_done && self.is_current(history));
                self.drive_all(now, actions);
            }
            (Asked::User(user), AnswerBody::Record(answer)) => self.record_came(&user, history, *answer, now, actions),
            (Asked::Scan, AnswerBody::Page(page)) => self.page_came(history, *page, now, actions),
            // Tried again after the next beat.
            (Asked::Beat, _) => self.member(MembershipEvent::BeatLost, now, actions),
            (Asked::User(user), _) => self.request_failed(&user),
            (Asked::Scan, _) => self.walk.page_lost(),
            (Asked::Floor | Asked::Other, _) => {}
        }
    }

    /// Whether an answer counts: the store had the history of the generation in force.
    fn is_current(&self, history: HistoryId) -> bool {
        self.membership.generation().is_some_and(|generation| generation.history == history)
    }

    /// Whether the answer of a record or a page counts: the bucket's meta has the generation in force, too.
    fn counts(&self, history: HistoryId, generation: Option<GenerationId>) -> bool {
        self.is_current(history) && generation == self.membership.generation().map(|generation| generation.id)
    }

    fn record_came(
        &mut self,
        user: &UserId,
        history: HistoryId,
        answer: RecordAnswer,
        now: Timestamp,
        actions: &mut BucketActions,
    ) {
        let RecordAnswer { generation, is_written, record } = answer;
        let counts = self.counts(history, generation);
        let read_after = self.membership.beats();
        let Some(state) = self.users.get_mut(user) else { return };
        let under_way = state.under_way.take();
        let mut told = UserActions::default();
        if !counts {
            // Decided again after the next beat, which says what is in force.
            if let Some(UnderWay::Write(decision)) = under_way {
                state.undo(*decision, true);
            }
            (state.known, state.must_read) = (None, true);
            return;
        }
        state.known = Some(KnownRecord { record, read_after });
        state.must_read = false;
        match under_way {
            Some(UnderWay::Write(decision)) if is_written => {
                let is_own = |node| self.membership.is_own(node);
                state.commit(*decision, &is_own, &mut told);
            }
            Some(UnderWay::Write(decision)) => {
                state.undo(*decision, false);
            }
            Some(UnderWay::Read) | None => {}
        }
        self.pass_on(told, actions);
        self.look(user, now, actions);
        self.drive(user, true, now, actions);
        self.check_asserted(now, actions);
    }

    /// The store certainly did not apply the request.
    fn request_failed(&mut self, user: &UserId) {
        let Some(state) = self.users.get_mut(user) else { return };
        if let Some(UnderWay::Write(decision)) = state.under_way.take() {
            state.undo(*decision, false);
        }
        state.must_read = true;
    }

    fn page_came(&mut self, history: HistoryId, page: PageAnswer, now: Timestamp, actions: &mut BucketActions) {
        let PageAnswer { generation, records, next } = page;
        if !self.counts(history, generation) {
            self.walk.page_lost();
            return;
        }
        self.walk.page_came(next);
        for (user, stamp, record) in records {
            if self.is_tidy(&user, &record) {
                continue;
            }
            let read_after = self.membership.beats();
            let state = self.users.entry(user.clone()).or_default();
            state.must_tidy = true;
            if state.under_way.is_none() {
                state.known = Some(KnownRecord { record: Some((stamp, record)), read_after });
            }
            self.drive(&user, false, now, actions);
        }
        self.scan(actions);
    }

    /// Whether each entry is of a session that this node serves, or of another node that is alive.
    fn is_tidy(&self, user: &UserId, record: &UserRecord) -> bool {
        let state = self.users.get(user);
        let sessions = record.sessions().iter().filter(|entry| entry.status == SessionStatus::Live);
        let sessions = sessions.map(|entry| entry.session);
        let waiting = record.waiting().iter().map(|waiter| waiter.session);
        let leaving = record.leaving().iter().map(|leaving| leaving.session);
        sessions.chain(waiting).chain(leaving).all(|session| {
            if self.membership.is_own(session.node()) {
                state.is_some_and(|state| state.sessions.contains_key(&session))
            } else {
                self.membership.is_seen_alive(session.node())
            }
        })
    }

    fn scan(&mut self, actions: &mut BucketActions) {
        if !self.membership.has_joined() {
            return;
        }
        if let Some(request) = self.walk.next_request() {
            self.send(request, Asked::Scan, actions);
        }
    }

    fn read_again(&mut self, user: &UserId, now: Timestamp, actions: &mut BucketActions) {
        self.users.entry(user.clone()).or_default().must_read = true;
        self.drive(user, false, now, actions);
    }

    fn drive_all(&mut self, now: Timestamp, actions: &mut BucketActions) {
        let users: Vec<_> = self.users.keys().cloned().collect();
        for user in users {
            self.drive(&user, false, now, actions);
        }
    }

    fn look(&mut self, user: &UserId, now: Timestamp, actions: &mut BucketActions) {
        let Some(state) = self.users.get_mut(user) else { return };
        let Some(known) = &state.known else { return };
        let (membership, read_after) = (&self.membership, known.read_after);
        let mut told = UserActions::default();
        state.look(&|node| membership.is_own(node), &|node| membership.liveness(node, read_after, now), &mut told);
        self.pass_on(told, actions);
    }

    /// Sends what the user's commands need next, if nothing is under way. `is_fresh`: the record came this very moment.
    fn drive(&mut self, user: &UserId, is_fresh: bool, now: Timestamp, actions: &mut BucketActions) {
        let Some(generation) = self.membership.generation().map(|generation| generation.id) else { return };
        let Some(node) = self.membership.node() else { return };
        let Some(state) = self.users.get_mut(user) else { return };
        if state.under_way.is_some() || self.needs_floor {
            return;
        }
        let mut told = UserActions::default();
        if !self.membership.may_admit() {
            state.refuse_acquires(&mut told);
        }
        let read_after = state.known.as_ref().map_or_else(|| self.membership.beats(), |known| known.read_after);
        let (membership, policy) = (&self.membership, &self.policy);
        let liveness = |node| membership.liveness(node, read_after, now);
        let is_own = |node| membership.is_own(node);
        let looked = membership.looked();
        let has_work = state.has_work();
        let is_read = state.must_read || (has_work && !state.may_guess()) || (state.must_tidy && state.known.is_none());
        let request = if is_read {
            state.under_way = Some(UnderWay::Read);
            Some(Request::Read(user.clone()))
        } else if has_work || state.can_tidy(looked) {
            let context = FoldContext { user, policy, now, looked, liveness: &liveness, is_own: &is_own };
            let decision = state.fold(&context);
            if decision.is_changed {
                self.last_stamp += 1;
                let stamp = stamp(node, self.last_stamp);
                let request = write(user, generation, (node, self.epoch), stamp, &decision, &is_own);
                state.under_way = Some(UnderWay::Write(Box::new(decision)));
                Some(Request::Write(Box::new(request)))
            } else if is_fresh || !has_work {
                state.commit(decision, &is_own, &mut told);
                None
            } else {
                // What did not change anything was decided on a record that may have changed.
                state.undo(decision, false);
                state.under_way = Some(UnderWay::Read);
                Some(Request::Read(user.clone()))
            }
        } else {
            None
        };
        self.pass_on(told, actions);
        match request {
            Some(request) => self.send(request, Asked::User(user.clone()), actions),
            // Grants that the store had already, say.
            None if is_fresh => self.look(user, now, actions),
            None => {}
        }
        self.forget_if_idle(user);
    }

    fn forget_if_idle(&mut self, user: &UserId) {
        if self.users.get(user).is_some_and(UserState::is_idle) {
            self.users.remove(user);
        }
    }

    fn send(&mut self, request: Request, asked: Asked, actions: &mut BucketActions) {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.requests.insert(id, asked);
        actions.requests.push((id, request));
    }

    fn pass_on(&mut self, told: UserActions, actions: &mut BucketActions) {
        let UserActions { outcomes, ended, hints } = told;
        self.unanswered -= outcomes.len();
        actions.outcomes.extend(outcomes);
        actions.ended.extend(ended);
        actions.hints.extend(hints);
    }
}
