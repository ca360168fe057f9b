//! Counts what scenarios must reach.

use std::time::Duration;

use session_core::SessionId;
use session_core::ledger::{
    AdmissionPolicy, EndReason, EndTarget, EndedSession, Evict, NotResumed, Outcome, Resumption, SessionRecord,
    SessionStatus, StoreCommand, UserRecord,
};
use shell::store::Completion;

use super::{Inner, Queued};
use crate::rule_oracle;

impl Inner {
    /// Counts the races that scenarios must reach.
    pub(super) fn count(
        &mut self,
        command: &StoreCommand,
        before: &UserRecord,
        policy: &AdmissionPolicy,
        outcome: &Outcome,
        ended: &[EndedSession],
    ) {
        let mut reached = Vec::new();
        for EndedSession { session, reason: how } in ended {
            reached.push(match how {
                EndReason::Resumed => "resumed from a live session",
                EndReason::Contested => "contested",
                _ => "a session ended",
            });
            let is_of_victim = |queued: &&Queued| queued.command.session() == *session;
            if self.queue.iter().find(is_of_victim).is_some_and(|queued| queued.command.is_release()) {
                reached.push("ended while its release was under way");
            }
            let is_its_grant = |(asker, _, outcome): &(SessionId, Completion<Outcome>, Outcome)| {
                asker == session && matches!(outcome, Outcome::Granted { .. })
            };
            if self.late.iter().any(is_its_grant) {
                reached.push("ended while its grant was long in coming");
            }
        }
        if let (StoreCommand::Acquire { options: Some(options), .. }, Outcome::Granted { grant: Some(grant), .. }) =
            (command, outcome)
        {
            if grant.resume == Resumption::Resumed {
                reached.push("resumed");
                let is_of = |entry: &SessionRecord| entry.resumable().map(|resumable| resumable.key) == options.resume;
                let is_of_dead = |entry: &SessionRecord| is_of(entry) && !self.alive.contains(&entry.session.node());
                if before.sessions().iter().any(is_of_dead) {
                    reached.push("resumed from a killed server");
                }
                let is_last_second = |entry: &SessionRecord| match entry.status {
                    SessionStatus::Live => false,
                    SessionStatus::Lingering { until } => until.since(self.now) < Duration::from_secs(1),
                };
                if before.sessions().iter().any(|entry| is_of(entry) && is_last_second(entry)) {
                    reached.push("resumed in its last second");
                }
            } else if let Resumption::Failed(why) = grant.resume {
                reached.push(match why {
                    NotResumed::Expired => "a token of a slot that expired",
                    NotResumed::Taken => "a token of a slot that was taken",
                    NotResumed::Unknown => "a token of a slot that is gone",
                });
            }
        }
        if let StoreCommand::Acquire { options: Some(options), .. } = command
            && let Some(Evict::Sessions(these)) = &options.evict
            && these.iter().any(|session| self.ended.contains(session))
        {
            reached.push("chosen by two");
        }
        if let (StoreCommand::EndSessions { target: EndTarget::Excess { .. }, .. }, Outcome::Ended { sessions, .. }) =
            (command, outcome)
            && !sessions.is_empty()
        {
            reached.push("ended by a lower limit");
        }
        if let (StoreCommand::Acquire { .. }, Outcome::Granted { .. }) = (command, outcome)
            && before.sessions().iter().any(|entry| entry.status != SessionStatus::Live)
        {
            reached.push("granted beside a slot that lingers");
        }
        let is_kept = |entry: &SessionRecord| rule_oracle::was_just_lost(entry, policy, self.now);
        if let (StoreCommand::Acquire { .. }, Outcome::Denied(_)) = (command, outcome)
            && policy.lingering_first
            && before.sessions().iter().any(is_kept)
        {
            reached.push("denied a slot that was just lost");
        }
        reached.into_iter().for_each(|what| self.reach(what));
    }
}
