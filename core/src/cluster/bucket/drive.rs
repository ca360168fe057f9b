//! What a bucket asks the store for next.

use alloc::boxed::Box;

use super::overrides::Writer;
use super::user_state::{FoldContext, UnderWay, UserActions};
use super::write::{WriteContext, stamp, write};
use super::{Asked, Bucket, BucketActions};
use crate::cluster::shared_store::Request;
use crate::id::UserId;
use crate::ledger::{StoreCommand, StoreError};
use crate::time::Timestamp;

impl Bucket {
    pub(super) fn raise_floor(&mut self, actions: &mut BucketActions) {
        let is_under_way = self.requests.values().any(|asked| *asked == Asked::Floor);
        if self.needs_floor
            && !is_under_way
            && let Some(generation) = self.membership.generation_id()
        {
            let nodes = self.membership.ids().collect();
            self.send(Request::RaiseFloor { nodes, generation, epoch: self.epoch }, Asked::Floor, actions);
        }
    }

    /// Reads the overrides, restores them or makes the next change.
    pub(super) fn ask_for_overrides(&mut self, actions: &mut BucketActions) {
        let (Some(&generation), Some(node), false) =
            (self.membership.generation(), self.membership.node(), self.needs_floor)
        else {
            return;
        };
        let (may_admit, epoch, number) = (self.membership.may_admit(), self.epoch, &mut self.last_stamp);
        let writer = || {
            *number += 1;
            Writer { generation, node, epoch, stamp: stamp(node, *number) }
        };
        if let Some(request) = self.overrides.next_request(may_admit, writer) {
            self.send(request, Asked::Overrides, actions);
        }
    }

    pub(super) fn scan(&mut self, actions: &mut BucketActions) {
        if !self.membership.has_joined() {
            return;
        }
        if let Some(from) = self.walk.next_page() {
            let (except, lingering) = (self.membership.others().collect(), self.membership.is_sweeper());
            let request = Request::Scan { from, except, lingering };
            self.send(request, Asked::Scan, actions);
        }
    }

    pub(super) fn read_again(&mut self, user: &UserId, now: Timestamp, actions: &mut BucketActions) {
        let state = self.users.touch(user);
        // What is under way may have been applied before the change.
        (state.must_read, state.is_hinted) = (true, state.under_way.is_some());
        self.drive(user, false, now, actions);
    }

    pub(super) fn drive_unsettled(&mut self, now: Timestamp, actions: &mut BucketActions) {
        for user in self.users.unsettled_ids() {
            self.drive(&user, false, now, actions);
        }
    }

    pub(super) fn look(&mut self, user: &UserId, now: Timestamp, actions: &mut BucketActions) {
        let Some(state) = self.users.touch_known(user) else { return };
        let Some(known) = &state.known else { return };
        let (membership, read_after) = (&self.membership, known.read_after);
        let mut told = UserActions::default();
        state.look(&|node| membership.is_own(node), &|node| membership.liveness(node, read_after, now), &mut told);
        self.pass_on(user, told, actions);
    }

    /// Sends what the user's commands need next, if nothing is under way. `is_fresh`: the record came this very moment.
    pub(super) fn drive(&mut self, user: &UserId, is_fresh: bool, now: Timestamp, actions: &mut BucketActions) {
        let Some(generation) = self.membership.generation_id() else { return };
        let Some(node) = self.membership.node() else { return };
        let Some(state) = self.users.touch_known(user) else { return };
        if state.under_way.is_some() || self.needs_floor {
            return;
        }
        let mut told = UserActions::default();
        if !self.membership.may_admit() {
            // While the record may lack sessions, nobody gets a slot, and no session ends.
            let is_change = |command: &StoreCommand| {
                matches!(command, StoreCommand::Acquire { .. } | StoreCommand::EndSessions { .. })
            };
            state.refuse(is_change, StoreError::Failed, &mut told);
        }
        if state.needs_policy() && !self.overrides.is_current() {
            self.pass_on(user, told, actions);
            return;
        }
        let read_after = state.known.as_ref().map_or_else(|| self.membership.beats(), |known| known.read_after);
        let membership = &self.membership;
        let policy = self.policy.with_overrides(self.overrides.of(user));
        let liveness = |node| membership.liveness(node, read_after, now);
        let is_own = |node| membership.is_own(node);
        let looked = membership.looked();
        let has_work = state.has_work();
        let is_read = (state.must_read && !state.must_restore())
            || (has_work && !state.may_guess())
            || (state.must_tidy && state.known.is_none());
        let request = if is_read {
            state.under_way = Some(UnderWay::Read);
            Some(Request::Read(user.clone()))
        } else if has_work || state.can_tidy(looked) {
            let context = FoldContext { user, policy: &policy, now, looked, liveness: &liveness, is_own: &is_own };
            let decision = state.fold(&context);
            if decision.is_changed {
                self.last_stamp += 1;
                let context = WriteContext {
                    user,
                    generation,
                    node,
                    epoch: self.epoch,
                    stamp: stamp(node, self.last_stamp),
                    overrides: self.overrides.version(),
                };
                let request = write(context, &decision, &is_own);
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
        self.pass_on(user, told, actions);
        match request {
            Some(request) => self.send(request, Asked::User(user.clone()), actions),
            // Grants that the store had already, say.
            None if is_fresh => self.look(user, now, actions),
            None => {}
        }
        self.users.settle(user);
    }
}
