//! What a bucket does with the answers of the store.

use core::mem;

use super::user_state::{KnownRecord, UnderWay, UserActions};
use super::{Asked, Bucket, BucketActions, RequestId};
use crate::cluster::membership::MembershipEvent;
use crate::cluster::shared_store::{
    Answer, AnswerBody, GenerationId, HistoryId, OverridesAnswer, PageAnswer, RecordAnswer,
};
use crate::id::UserId;
use crate::ledger::{SessionRecord, StoreError, UserRecord};
use crate::time::Timestamp;

impl Bucket {
    pub(super) fn reconnected(&mut self, epoch: u64, now: Timestamp, actions: &mut BucketActions) {
        self.epoch = epoch;
        for asked in mem::take(&mut self.requests).into_values() {
            match asked {
                Asked::Beat => self.member(MembershipEvent::BeatLost, now, actions),
                Asked::User(user) => {
                    let Some(state) = self.users.touch_known(&user) else { continue };
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
                Asked::Overrides => self.overrides.lost(),
                Asked::Floor | Asked::Other => {}
            }
        }
        self.raise_floor(actions);
        self.overrides.go_on();
        self.ask_for_overrides(actions);
        self.drive_unsettled(now, actions);
        self.scan(actions);
    }

    pub(super) fn answered(&mut self, request: RequestId, answer: Answer, now: Timestamp, actions: &mut BucketActions) {
        let Some(asked) = self.requests.remove(&request) else { return };
        let Answer { history, body } = answer;
        match (asked, body) {
            (Asked::Beat, AnswerBody::Beat(answer)) => {
                self.member(MembershipEvent::BeatAnswered(*answer), now, actions)
            }
            (Asked::Floor, AnswerBody::Done(is_done)) => {
                self.needs_floor &= !(is_done && self.is_current(history));
                self.ask_for_overrides(actions);
                self.drive_unsettled(now, actions);
            }
            (Asked::User(user), AnswerBody::Record(answer)) => self.record_came(&user, history, *answer, now, actions),
            (Asked::Scan, AnswerBody::Page(page)) => self.page_came(history, *page, now, actions),
            (Asked::Overrides, AnswerBody::Overrides(answer)) => self.overrides_came(history, *answer, now, actions),
            // Tried again after the next beat.
            (Asked::Beat, _) => self.member(MembershipEvent::BeatLost, now, actions),
            (Asked::User(user), AnswerBody::Failed(error)) => self.request_failed(&user, error, actions),
            (Asked::User(user), _) => self.request_failed(&user, StoreError::Failed, actions),
            (Asked::Scan, _) => self.walk.page_lost(),
            (Asked::Overrides, AnswerBody::Failed(error)) => {
                actions.overrides.extend(self.overrides.failed(error));
                self.ask_for_overrides(actions);
            }
            (Asked::Overrides, _) => self.overrides.lost(),
            (Asked::Floor | Asked::Other, _) => {}
        }
    }

    /// Whether an answer counts: the store had the history of the generation in force.
    fn is_current(&self, history: HistoryId) -> bool {
        self.membership.generation().is_some_and(|generation| generation.history == history)
    }

    /// Whether the answer of a record or a page counts: the bucket's meta has the generation in force, too.
    fn counts(&self, history: HistoryId, generation: Option<GenerationId>) -> bool {
        self.is_current(history) && generation == self.membership.generation_id()
    }

    fn record_came(
        &mut self,
        user: &UserId,
        history: HistoryId,
        answer: RecordAnswer,
        now: Timestamp,
        actions: &mut BucketActions,
    ) {
        let RecordAnswer { generation, overrides, is_written, record } = answer;
        let counts = self.counts(history, generation);
        let read_after = self.membership.beats();
        let Some(state) = self.users.touch_known(user) else { return };
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
        state.must_read = mem::take(&mut state.is_hinted);
        match under_way {
            Some(UnderWay::Write(decision)) if is_written => {
                let is_own = |node| self.membership.is_own(node);
                state.commit(*decision, &is_own, &mut told);
            }
            Some(UnderWay::Write(decision)) => {
                let has_changed = state.stamp() != decision.expected || self.overrides.version() != Some(overrides);
                state.undo(*decision, false);
                if !has_changed {
                    // The others take this node for dead. The next beat says so.
                    state.must_read = true;
                    return;
                }
            }
            Some(UnderWay::Read) | None => {}
        }
        self.pass_on(user, told, actions);
        self.overrides.saw(overrides);
        self.ask_for_overrides(actions);
        self.look(user, now, actions);
        self.drive(user, true, now, actions);
        self.check_asserted(now, actions);
    }

    /// The store certainly did not apply the request.
    fn request_failed(&mut self, user: &UserId, error: StoreError, actions: &mut BucketActions) {
        let Some(state) = self.users.touch_known(user) else { return };
        if let Some(UnderWay::Write(decision)) = state.under_way.take() {
            state.undo(*decision, false);
        }
        state.must_read = true;
        let mut told = UserActions::default();
        state.refuse(|command| !command.is_release(), error, &mut told);
        self.pass_on(user, told, actions);
    }

    fn page_came(&mut self, history: HistoryId, page: PageAnswer, now: Timestamp, actions: &mut BucketActions) {
        let PageAnswer { generation, records, next } = page;
        if !self.counts(history, generation) {
            self.walk.page_lost();
            return;
        }
        self.walk.page_came(next);
        for (user, stamp, record) in records {
            if self.is_tidy(&user, &record, now) {
                continue;
            }
            let read_after = self.membership.beats();
            let state = self.users.touch(&user);
            state.must_tidy = true;
            if state.under_way.is_none() {
                state.known = Some(KnownRecord { record: Some((stamp, record)), read_after });
            }
            self.drive(&user, false, now, actions);
        }
        self.scan(actions);
    }

    /// Whether each entry is of a session that this node serves, or of another node that is alive, or lingers.
    fn is_tidy(&self, user: &UserId, record: &UserRecord, now: Timestamp) -> bool {
        let state = self.users.get(user);
        let has_lapsed = |entry: &SessionRecord| entry.status.lingers_until().is_some_and(|until| until <= now);
        let lingers = !record.sessions().iter().any(has_lapsed);
        lingers
            && record.connected_sessions().all(|session| {
                if self.membership.is_own(session.node()) {
                    state.is_some_and(|state| state.sessions.contains_key(&session))
                } else {
                    self.membership.is_seen_alive(session.node())
                }
            })
    }

    fn overrides_came(
        &mut self,
        history: HistoryId,
        answer: OverridesAnswer,
        now: Timestamp,
        actions: &mut BucketActions,
    ) {
        if !self.counts(history, answer.generation) {
            self.overrides.lost();
            return;
        }
        actions.overrides.extend(self.overrides.came(answer));
        self.ask_for_overrides(actions);
        if self.overrides.is_current() {
            self.drive_unsettled(now, actions);
            self.check_asserted(now, actions);
        }
    }
}
