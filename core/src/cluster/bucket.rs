//! What a node does in one bucket: it turns commands into requests to the shared store, and answers into outcomes.

mod io;
mod own_session;
mod user_state;
mod users;
mod overrides;
mod walk;
mod write;
mod answers;
mod drive;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::membership::{Membership, MembershipActions, MembershipEvent};
use super::shared_store::{NodeEntry, Request};
use super::timing::ClusterTiming;
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{AdmissionPolicy, Outcome, StoreCommand, StoreError, UserOverrides};
use crate::time::Timestamp;
use overrides::Overrides;
use own_session::OwnSession;
use user_state::{Call, UserActions, UserState};
use users::Users;
use walk::Walk;

pub use io::{BucketActions, BucketEvent, RequestId};
pub use overrides::OverridesOutcome;
pub use own_session::CallId;

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
/// - After [`BucketActions::fenced`], close all connections of the bucket's users at once. Then draw another id and send it to all
///   buckets of the node with [`BucketEvent::Joins`]: new sessions have it. A bucket that fences because of that very event has it
///   already, and needs no other one.
/// - Report a session that was denied or rejected, and ends, to nobody: it has nothing.
#[derive(Debug)]
pub struct Bucket {
    policy: AdmissionPolicy,
    timing: ClusterTiming,
    capacity: usize,
    membership: Membership,
    users: Users,
    overrides: Overrides,
    /// The requests that are not answered, and what they are about.
    requests: BTreeMap<RequestId, Asked>,
    last_request: u64,
    last_stamp: u64,
    /// The number of the connection to the store.
    epoch: u64,
    /// Whether a write of an older connection may still arrive.
    needs_floor: bool,
    walk: Walk,
    /// When the sweeper looks for slots that have lapsed.
    next_walk: Timestamp,
    /// The number of commands that are not answered.
    unanswered: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Beat,
    Floor,
    User(UserId),
    Overrides,
    Scan,
    /// What becomes of it is seen in the next beat.
    Other,
}

/// The policy of a server that shares its store.
const fn shared(policy: AdmissionPolicy) -> AdmissionPolicy {
    AdmissionPolicy { reuses_above_limit: false, ..policy }
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
            policy: shared(policy),
            timing,
            capacity,
            membership: Membership::new(node, former, timing, now),
            users: Users::default(),
            overrides: Overrides::default(),
            requests: BTreeMap::new(),
            last_request: 0,
            last_stamp: 0,
            epoch: 0,
            needs_floor: false,
            walk: Walk::default(),
            next_walk: now + timing.memory(),
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

    /// The overrides of the bucket's users, as this node knows them. `None` before it has read them.
    #[must_use]
    pub fn overrides(&self) -> Option<&BTreeMap<UserId, UserOverrides>> {
        self.overrides.all()
    }

    /// How many sessions of this node were told that they have a slot, and have it. It looks at all of them.
    #[must_use]
    pub fn told_sessions(&self) -> usize {
        let sessions = self.users.all().flat_map(|state| state.sessions.values());
        sessions.filter(|own| matches!(own, OwnSession::Told { .. })).count()
    }

    /// Replaces the policy. Its overrides do not count. It holds for commands that are decided from now on.
    pub const fn set_policy(&mut self, policy: AdmissionPolicy) {
        self.policy = shared(policy);
    }

    /// Whether nothing is left to do: no session of this node has a slot or waits for one, no command is undecided, and no entry of
    /// this node can be left in the generation in force.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_decided = self.users.all().all(UserState::is_idle) && self.overrides.unanswered() == 0;
        is_decided && !self.needs_floor && self.is_scrubbed()
    }

    /// Whether the store has no entry of this node that no session stands behind. If it has forgotten a release, the walk finds
    /// out, as long as the node has its id.
    fn is_scrubbed(&self) -> bool {
        self.membership.may_admit() && self.walk.is_over() && !self.users.unsettled().any(|state| state.must_tidy)
    }

    /// Marks the session as told, if it may be: it was granted a slot in the generation in force, and still has it.
    #[must_use = "if it is false, the client must not be told"]
    pub fn tell(&mut self, user: &UserId, session: SessionId, now: Timestamp) -> bool {
        if !self.may_serve(now) {
            return false;
        }
        let Some(own) = self.users.touch_known(user).and_then(|state| state.sessions.get_mut(&session)) else {
            return false;
        };
        let OwnSession::Ready(entry) = own else { return false };
        *own = OwnSession::Told { entry: entry.clone(), is_asserted: true };
        self.users.settle(user);
        true
    }

    /// Takes a command back that has not been sent. Returns `false` if it may be applied, or was answered.
    #[must_use = "if it is false, the command may be applied"]
    pub fn withdraw(&mut self, user: &UserId, call: CallId) -> bool {
        let Some(state) = self.users.touch_known(user) else { return false };
        let is_withdrawn = state.withdraw(call);
        self.unanswered -= usize::from(is_withdrawn);
        self.users.settle(user);
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
            BucketEvent::SetOverrides(call, user, overrides) => {
                self.set_overrides(call, user, overrides, &mut actions);
            }
            BucketEvent::Answered(request, answer) => self.answered(request, answer, now, &mut actions),
            BucketEvent::Reconnected(epoch) => self.reconnected(epoch, now, &mut actions),
            BucketEvent::Hinted(user) => self.read_again(&user, now, &mut actions),
            BucketEvent::Closed(user, session) => {
                let mut told = UserActions::default();
                if let Some(state) = self.users.touch_known(&user) {
                    state.close(session, false, &mut told);
                }
                self.pass_on(&user, told, &mut actions);
                // Another session of this node may have waited for it.
                self.look(&user, now, &mut actions);
                self.drive(&user, false, now, &mut actions);
            }
            BucketEvent::Joins(node) => self.member(MembershipEvent::Joins(node), now, &mut actions),
            BucketEvent::Bury(node) => self.member(MembershipEvent::Bury(node), now, &mut actions),
            BucketEvent::Leaves if !self.is_idle() => {}
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
        let room = if is_acquire { self.capacity - self.capacity / 4 } else { self.capacity };
        let outcome = if command.is_release() {
            // What was fenced has nothing to give back.
            (!is_own).then_some(Outcome::Released)
        } else if !self.membership.has_joined() || (is_acquire && !self.membership.is_own(session.node())) {
            // To the others the slot of an id that has not joined is that of a dead node.
            Some(Outcome::Rejected(StoreError::Failed))
        } else {
            (self.unanswered >= room).then_some(Outcome::Rejected(StoreError::Overloaded))
        };
        if let Some(outcome) = outcome {
            actions.outcomes.push((call, outcome));
            return;
        }
        let user = command.user().clone();
        let state = self.users.touch(&user);
        let mut told = UserActions::default();
        if command.is_release() {
            state.close(session, matches!(command, StoreCommand::Linger { .. }), &mut told);
        } else if is_acquire {
            state.sessions.entry(session).or_insert(OwnSession::Asking { is_in_line: false });
        }
        state.queue.push(Call { id: call, command, may_be_applied: false });
        self.unanswered += 1;
        self.pass_on(&user, told, actions);
        self.look(&user, now, actions);
        self.drive(&user, false, now, actions);
    }

    fn set_overrides(&mut self, call: CallId, user: UserId, overrides: UserOverrides, actions: &mut BucketActions) {
        let refused = if !self.membership.may_admit() {
            Some(StoreError::Failed)
        } else {
            (self.overrides.unanswered() >= self.capacity).then_some(StoreError::Overloaded)
        };
        match refused {
            Some(error) => actions.overrides.push((call, OverridesOutcome::Rejected(error))),
            None => self.overrides.change(call, user, overrides),
        }
        self.ask_for_overrides(actions);
    }

    /// Hands an event to the membership, and does what it wants.
    fn member(&mut self, event: MembershipEvent, now: Timestamp, actions: &mut BucketActions) {
        let MembershipActions { requests, fenced, is_new_generation, has_opened, overrides, inbox } =
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
            self.users.forget(&mut told);
            self.walk.forget();
            self.unanswered -= told.outcomes.len();
            actions.outcomes.extend(told.outcomes);
            // What was sent before was decided in another generation: it is refused.
            self.needs_floor = false;
            // The answer to what was asked before does not count.
            self.requests.retain(|_, asked| *asked != Asked::Overrides);
            actions.overrides.extend(self.overrides.begin_again());
        }
        if has_opened {
            self.walk.begin(self.membership.dead());
        }
        for (user, _) in inbox {
            self.users.touch(&user).must_read = true;
        }
        if let Some(version) = overrides {
            self.overrides.saw(version);
            self.overrides.go_on();
            self.after_beat(now, actions);
        }
    }

    /// What waits for the answer to a beat: the floor, the re-assertion, the walk, and grants that wait for the dead.
    fn after_beat(&mut self, now: Timestamp, actions: &mut BucketActions) {
        self.raise_floor(actions);
        self.ask_for_overrides(actions);
        for user in self.users.unsettled_ids() {
            if let Some(state) = self.users.touch_known(&user) {
                // Hints may be lost.
                state.must_read |= state.has_grants();
            }
            self.look(&user, now, actions);
            self.drive(&user, false, now, actions);
        }
        self.check_asserted(now, actions);
        if self.membership.is_sweeper() {
            if now >= self.next_walk {
                self.next_walk = now + self.timing.memory();
                self.walk.begin(self.membership.dead());
            }
            self.walk.begin_if_dead(self.membership.dead());
            self.forget_outdated(now, actions);
        }
        self.scan(actions);
        let ids: Vec<_> = self.membership.ids().collect();
        let (_, older) = ids.split_last().unwrap_or((&NodeId::new(0), &[]));
        for &node in older {
            if self.is_scrubbed() && !self.users.all().any(|state| state.concerns(node)) {
                self.member(MembershipEvent::Leaves(node), now, actions);
            }
        }
    }

    /// Nodes that nobody has to remember any more: no record names them, and what they have sent has come or is lost.
    fn forget_outdated(&mut self, now: Timestamp, actions: &mut BucketActions) {
        let Some(generation) = self.membership.generation_id() else { return };
        if !self.is_scrubbed() {
            return;
        }
        let is_named_nowhere =
            |(node, entry): &(NodeId, NodeEntry)| *entry == NodeEntry::Left || self.walk.has_swept(*node);
        let outdated: Vec<_> = self.membership.outdated(now).filter(is_named_nowhere).collect();
        for (node, _) in outdated {
            self.send(Request::Forget { node, generation }, Asked::Other, actions);
        }
    }

    fn check_asserted(&mut self, now: Timestamp, actions: &mut BucketActions) {
        let is_asserted = || self.overrides.is_current() && !self.users.unsettled().any(UserState::must_restore);
        if !self.membership.is_reasserted() && is_asserted() {
            self.member(MembershipEvent::Reasserted, now, actions);
        }
    }

    fn fence(&mut self, actions: &mut BucketActions) {
        let mut told = UserActions::default();
        actions.cut = self.users.own_sessions().collect();
        self.users.fence(&mut told);
        self.requests.clear();
        self.unanswered = 0;
        (self.needs_floor, self.walk) = (false, Walk::default());
        actions.outcomes.extend(told.outcomes);
        actions.overrides.extend(self.overrides.begin_again());
    }

    fn send(&mut self, request: Request, asked: Asked, actions: &mut BucketActions) {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.requests.insert(id, asked);
        actions.requests.push((id, request));
    }

    fn pass_on(&mut self, user: &UserId, told: UserActions, actions: &mut BucketActions) {
        let UserActions { outcomes, ended, lapsed, displaced, hints } = told;
        self.unanswered -= outcomes.len();
        actions.outcomes.extend(outcomes);
        actions.ended.extend(ended.into_iter().map(|ended| (user.clone(), ended)));
        actions.lapsed.extend(lapsed.into_iter().map(|session| (user.clone(), session)));
        actions.displaced.extend(displaced.into_iter().map(|ended| (user.clone(), ended)));
        actions.hints.extend(hints);
    }
}
