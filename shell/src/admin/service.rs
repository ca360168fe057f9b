//! Carries out the requests of an operator: reads the store, changes it, and reports.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use session_core::connection_limiter::ClientPrefix;
use session_core::ledger::{self, EndReason, EndTarget, Outcome, SlotUsage, StoreCommand, WhenFull};
use session_core::ledger::{
    AdmissionPolicy, Liveness, SessionRecord, SlotLimit, StoreError, UserOverrides, UserRecord,
};
use session_core::protocol::SessionSummary;
use session_core::{SessionId, UserId};
use smol::Timer;
use smol::future::or;
use smol::lock::{Mutex, MutexGuardArc};

use super::error::AdminError;
use super::report::{NextOutcome, SessionReport, UserReport};
use super::request::{AdminRequest, Override, SlotCount, UserPatch};
use crate::runtime::clock::Clock;
use crate::runtime::events::log_event;
use crate::store::{Completion, Store, StoreFailure, UserUpdate};

/// Answers from which address the client of a session connects; `None` for a session that is not connected here.
pub type AddressOf = Box<dyn Fn(SessionId) -> Option<IpAddr> + Send + Sync>;

/// Carries out an operator's requests on one store.
pub struct AdminService {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Where a session's client connects from. `None` if no server runs in this process.
    address_of: Option<AddressOf>,
    store_timeout: Duration,
    /// Held from reading a user's overrides until the store has changed them or has not, even if the request has timed out
    /// by then. So no change overwrites another.
    update_lock: Arc<Mutex<()>>,
}

impl AdminService {
    /// A service for this store. It has the clock of the process that opened the store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, address_of: Option<AddressOf>, store_timeout: Duration) -> Self {
        let clock = store.context().process().clock.clone();
        Self { store, clock, address_of, store_timeout, update_lock: Arc::default() }
    }

    /// Carries out a request, and reports the user's state after it.
    ///
    /// # Errors
    /// [`AdminError`] says why it was not carried out, or which part of it was not.
    pub async fn handle(&self, user: &UserId, request: &AdminRequest) -> Result<UserReport, AdminError> {
        match request {
            AdminRequest::Explain => self.report(user, Vec::new()).await,
            AdminRequest::Limit(patch) if patch.dry_run => self.dry_run(user, patch).await,
            AdminRequest::Limit(patch) => {
                let limit = {
                    let update_lock = self.update_lock.lock_arc().await;
                    let overrides = patched_overrides(self.policy_for(user).await?.overrides, patch)?;
                    self.update_user(user, UserUpdate::Set(overrides), update_lock).await?;
                    log_event!(overrides_set {
                        user,
                        limit: overrides.limit.map(display),
                        when_full: overrides.when_full.map(WhenFull::name),
                    });
                    overrides.limit
                };
                let not_enforced = |why| AdminError::NotEnforced(Box::new(why));
                // Another request may change the override meanwhile. This one enforces the limit that it named.
                let ended = match limit.filter(|_| patch.enforce) {
                    Some(limit) => {
                        let target = EndTarget::Excess { limit, dry_run: false };
                        self.end(user, target).await.map_err(not_enforced)?
                    }
                    None => Vec::new(),
                };
                self.report_after(user, ended).await
            }
            AdminRequest::End(session) => {
                let ended = self.end(user, session.map_or(EndTarget::All, EndTarget::One)).await?;
                if ended.is_empty() && session.is_some() {
                    return Err(AdminError::NoSuchSession);
                }
                self.report_after(user, ended).await
            }
            AdminRequest::Forget => {
                let update_lock = self.update_lock.lock_arc().await;
                let held = self.list(user).await?.slots;
                if held > 0 {
                    return Err(AdminError::HoldsSlots(held));
                }
                self.update_user(user, UserUpdate::Forget, update_lock).await?;
                log_event!(user_forgotten { user });
                self.report_after(user, Vec::new()).await
            }
        }
    }

    /// The report after a change. The change stays, even if the report fails.
    async fn report_after(&self, user: &UserId, ended: Vec<SessionId>) -> Result<UserReport, AdminError> {
        self.report(user, ended).await.map_err(|_| AdminError::ReportUnavailable)
    }

    async fn report(&self, user: &UserId, ended: Vec<SessionId>) -> Result<UserReport, AdminError> {
        let usage = self.list(user).await?;
        let policy = self.policy_for(user).await?;
        let next = self.next_outcome(user, usage.sessions.to_vec(), &policy);
        Ok(self.describe(user, &usage, &policy, next, &ended))
    }

    /// The report as it would be after this change.
    async fn dry_run(&self, user: &UserId, patch: &UserPatch) -> Result<UserReport, AdminError> {
        let usage = self.list(user).await?;
        let policy = self.policy_for(user).await?;
        let policy = policy.with_overrides(patched_overrides(policy.overrides, patch)?);
        let mut left = usage.sessions.to_vec();
        let excess = |limit| StoreCommand::EndSessions {
            user: user.clone(),
            session: self.admin_session(),
            target: EndTarget::Excess { limit, dry_run: true },
            reason: EndReason::ByOperator,
            at: self.clock.now(),
        };
        let ended = if let Some(limit) = policy.overrides.limit.filter(|_| patch.enforce)
            && let Outcome::Ended { sessions, .. } = simulate(left.clone(), &excess(limit), &policy).0
        {
            sessions.into_vec()
        } else {
            Vec::new()
        };
        // The next session meets only the sessions that would be left.
        left.retain(|session| !ended.contains(&session.session));
        let next = self.next_outcome(user, left, &policy);
        let (limit, limit_source) = policy.limit_for(None);
        let report = self.describe(user, &SlotUsage { limit, limit_source, ..usage }, &policy, next, &ended);
        Ok(UserReport { dry_run: true, ..report })
    }

    /// What one more session would get while these hold slots.
    fn next_outcome(&self, user: &UserId, holders: Vec<SessionRecord>, policy: &AdmissionPolicy) -> NextOutcome {
        let (user, session) = (user.clone(), self.admin_session());
        let acquire = StoreCommand::Acquire { user, session, limit: None, at: self.clock.now(), options: None };
        let sessions: Vec<_> = holders.iter().map(|holder| holder.session).collect();
        let (outcome, record) = simulate(holders, &acquire, policy);
        if matches!(outcome, Outcome::Granted { .. }) {
            let gone = sessions.into_iter().filter(|&session| record.session(session).is_none());
            NextOutcome::Granted { ended: gone.map(|session| session.to_string()).collect() }
        } else {
            NextOutcome::Denied
        }
    }

    fn describe(
        &self,
        user: &UserId,
        usage: &SlotUsage,
        policy: &AdmissionPolicy,
        next: NextOutcome,
        ended: &[SessionId],
    ) -> UserReport {
        let session_report = |session| {
            let session = SessionSummary::from(session);
            let from = self.address_of.as_ref().and_then(|address_of| address_of(session.id));
            let client_prefix = from.map(|address| ClientPrefix::from(address).to_string());
            SessionReport { session, from, client_prefix }
        };
        UserReport {
            user: user.clone(),
            limit: usage.limit.slots(),
            limit_source: usage.limit_source,
            when_full: policy.effective_when_full(),
            connections: usage.slots,
            sessions: usage.sessions.iter().map(session_report).collect(),
            next,
            ended: ended.iter().map(ToString::to_string).collect(),
            dry_run: false,
        }
    }

    async fn list(&self, user: &UserId) -> Result<SlotUsage, AdminError> {
        let (user, session) = (user.clone(), self.admin_session());
        let list = StoreCommand::ListSessions { user, session, limit: None, is_unbounded: true, at: self.clock.now() };
        if let Outcome::Listed(usage) = self.submit(list).await? { Ok(*usage) } else { Err(AdminError::StoreTimedOut) }
    }

    async fn end(&self, user: &UserId, target: EndTarget) -> Result<Vec<SessionId>, AdminError> {
        let (asked, session, by) = (user, self.admin_session(), EndReason::ByOperator);
        let user = user.clone();
        let end = StoreCommand::EndSessions { user, session, target, reason: by, at: self.clock.now() };
        if let Outcome::Ended { sessions, .. } = self.submit(end).await? {
            if !sessions.is_empty() {
                log_event!(sessions_ended { user: asked, ended: sessions.len() });
            }
            Ok(sessions.into_vec())
        } else {
            Err(AdminError::StoreTimedOut)
        }
    }

    /// No connection has this id: their numbers begin at 1.
    fn admin_session(&self) -> SessionId {
        self.store.node().session(0)
    }

    async fn submit(&self, command: StoreCommand) -> Result<Outcome, AdminError> {
        let (completion, outcome) = Completion::channel();
        self.store.submit(command, completion);
        let outcome = self.within_timeout(async { Ok(outcome.await) }).await.map_err(unanswered)?;
        if let Outcome::Rejected(error) = outcome { Err(AdminError::Store(error)) } else { Ok(outcome) }
    }

    async fn policy_for(&self, user: &UserId) -> Result<AdmissionPolicy, AdminError> {
        self.within_timeout(self.store.policy_for(user)).await.map_err(unanswered)
    }

    /// Holds `update_lock` until the store has made the change or has not, even if this stops waiting before.
    async fn update_user(
        &self,
        user: &UserId,
        update: UserUpdate,
        update_lock: MutexGuardArc<()>,
    ) -> Result<(), AdminError> {
        let (sender, receiver) = smol::channel::bounded(1);
        let completion = Completion::new(move |result| {
            drop(update_lock);
            // Fails if this stopped waiting.
            let _late = sender.try_send(result);
        });
        self.store.update_user(user.clone(), update, completion);
        let result = async { receiver.recv().await.unwrap_or(Err(StoreFailure::InDoubt)) };
        self.within_timeout(result).await.map_err(|failure| match failure {
            StoreFailure::Rejected(error @ (StoreError::Overloaded | StoreError::Full)) => AdminError::Store(error),
            // The operator looks before ordering it again: also where a store that fails says that nothing was done.
            StoreFailure::Rejected(StoreError::Failed) | StoreFailure::InDoubt => AdminError::InDoubt,
            StoreFailure::TimedOut => AdminError::StoreTimedOut,
        })
    }

    async fn within_timeout<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreFailure>>,
    ) -> Result<T, StoreFailure> {
        let late = async {
            Timer::after(self.store_timeout).await;
            Err(StoreFailure::TimedOut)
        };
        or(answer, late).await
    }
}

/// Why a question that changes nothing has no answer.
fn unanswered(failure: StoreFailure) -> AdminError {
    match failure {
        StoreFailure::Rejected(error) => AdminError::Store(error),
        StoreFailure::InDoubt | StoreFailure::TimedOut => AdminError::StoreTimedOut,
    }
}

/// These overrides with the change made.
fn patched_overrides(mut overrides: UserOverrides, patch: &UserPatch) -> Result<UserOverrides, AdminError> {
    match patch.limit {
        None => {}
        Some(Override::Default(_)) => overrides.limit = None,
        Some(Override::To(SlotCount::Unlimited(_))) => overrides.limit = Some(SlotLimit::MAX),
        Some(Override::To(SlotCount::Number(slots))) => {
            overrides.limit = Some(SlotLimit::new(slots).map_err(|error| AdminError::BadRequest(error.to_string()))?);
        }
    }
    match patch.when_full {
        None => {}
        Some(Override::Default(_)) => overrides.when_full = None,
        Some(Override::To(when_full)) => overrides.when_full = Some(when_full),
    }
    if patch.enforce && overrides.limit.is_none() {
        // A session may be within the limit that its token claims, and the record does not keep that limit.
        return Err(AdminError::BadRequest("only a limit that is set for the user can be enforced: give one".into()));
    }
    Ok(overrides)
}

/// Applies a command to a copy of these sessions: the outcome, and the record after it.
fn simulate(sessions: Vec<SessionRecord>, command: &StoreCommand, policy: &AdmissionPolicy) -> (Outcome, UserRecord) {
    let mut record = UserRecord::from_sessions(sessions).expect("they are a record's");
    // The store listed no lapsed sessions.
    let result = ledger::apply(command.user(), &mut record, command, policy, |_| Liveness::Alive);
    (result.outcome, record)
}
