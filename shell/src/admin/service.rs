//! Carries out the requests of an operator: reads the store, changes it, and reports.

use std::net::IpAddr;
use std::path::{Path, absolute};
use std::sync::Arc;
use std::time::{Duration, Instant};

use session_core::connection_limiter::ClientPrefix;
use session_core::ledger::{self, EndReason, EndTarget, Outcome, SlotUsage, StoreCommand, WhenFull};
use session_core::ledger::{
    AdmissionPolicy, Liveness, SessionRecord, SlotLimit, StoreError, UserOverrides, UserRecord,
};
use session_core::protocol::SessionSummary;
use session_core::{NodeId, SessionId, UserId};
use smol::Timer;
use smol::future::or;
use smol::lock::{Mutex, MutexGuardArc};

use super::error::AdminError;
use super::nodes::{BurialReport, NodesReport};
use super::report::{Change, NextOutcome, SessionReport, StateReport, UserReport};
use super::request::{AdminRequest, Override, SlotCount, UserPatch};
use super::status::{ServerStatus, SessionTotals, StatusReport};
use super::user_list::{UserList, UserListRequest};
use crate::runtime::clock::Clock;
use crate::runtime::events::{hash_of, log_event};
use crate::runtime::user_id_form::UserIdForm;
use crate::store::{Burial, Completion, PageRequest, SeenState, Store, StoreFailure, UserFilter, UserUpdate};

/// Answers from which address the client of a session connects; `None` for a session that is not connected here.
pub type AddressOf = Box<dyn Fn(SessionId) -> Option<IpAddr> + Send + Sync>;

/// Carries out an operator's requests on one store.
pub struct AdminService {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Where a session's client connects from. `None` if no server runs in this process.
    address_of: Option<AddressOf>,
    /// The data directory of the store, if it has one.
    data: Option<String>,
    /// What the server says of itself. `None` if no server runs in this process.
    server_status: Option<ServerStatusOf>,
    store_timeout: Duration,
    /// Held from reading a user's overrides until the store has changed them or has not, even if the request has timed out
    /// by then. So no change overwrites another.
    update_lock: Arc<Mutex<()>>,
    /// The form in which the ids count that operators name.
    user_id_form: UserIdForm,
}

/// Answers what the server says of itself. It may block.
pub type ServerStatusOf = Arc<dyn Fn() -> ServerStatus + Send + Sync>;

/// What a request has done.
#[derive(Debug, Default)]
struct Effect {
    /// Whether it changed anything.
    is_change: bool,
    /// What was in force for the user before it, if it was to change that. The store says it, which made the change.
    before: Option<(AdmissionPolicy, Option<SeenState>)>,
    /// How many slots were held before it, if it was to end sessions. The store says it, too.
    connections_before: Option<u32>,
    ended: Vec<SessionId>,
}

impl Effect {
    /// What this and the next step of the request have done. The next one ended sessions.
    fn and(self, next: Self) -> Self {
        Self { is_change: self.is_change || next.is_change, before: self.before, ..next }
    }
}

impl AdminService {
    /// A service for this store. It has the clock of the process that opened the store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, address_of: Option<AddressOf>, store_timeout: Duration) -> Self {
        let clock = store.context().process().clock.clone();
        Self {
            store,
            clock,
            address_of,
            data: None,
            server_status: None,
            store_timeout,
            update_lock: Arc::default(),
            user_id_form: UserIdForm::Exact,
        }
    }

    /// The same service, for users whose ids count in this form.
    #[must_use]
    pub fn with_user_id_form(self, user_id_form: UserIdForm) -> Self {
        Self { user_id_form, ..self }
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The same, for the store in this data directory.
    #[must_use]
    pub fn with_data(self, data: &Path) -> Self {
        let data = absolute(data).unwrap_or_else(|_| data.into());
        Self { data: Some(data.display().to_string()), ..self }
    }

    /// The same, for the server that runs in this process.
    #[must_use]
    pub fn with_server_status(self, server_status: ServerStatusOf) -> Self {
        Self { server_status: Some(server_status), ..self }
    }

    /// One page of the users that the store knows.
    ///
    /// # Errors
    /// [`AdminError`] says why there is none.
    pub async fn list_users(&self, request: &UserListRequest) -> Result<UserList, AdminError> {
        let (filter, page) = request.read()?;
        let page = self.within_timeout(self.store.list_users(filter, page)).await.map_err(unanswered)?;
        Ok(page.into())
    }

    /// The servers that share the store.
    ///
    /// # Errors
    /// [`AdminError`] says why there is no answer.
    pub async fn list_nodes(&self) -> Result<NodesReport, AdminError> {
        let list = self.store.list_nodes().await.map_err(unanswered)?;
        Ok(NodesReport::new(list, self.clock.now()))
    }

    /// Declares another server dead.
    ///
    /// # Errors
    /// [`AdminError`] says why not.
    pub async fn bury(&self, node: NodeId) -> Result<BurialReport, AdminError> {
        match self.store.bury(node).await.map_err(undone)? {
            Burial::NotShared => Err(AdminError::NotShared),
            Burial::OwnNode => Err(AdminError::OwnNode),
            Burial::NoSuchNode(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                Err(AdminError::NoSuchNode(node, nodes.join(", ")))
            }
            Burial::AlreadyDead => Ok(BurialReport { node: node.to_string(), buried: 0, open: 0 }),
            Burial::Ordered { buried, open } => {
                log_event!(node_buried { node: display(node), parts: buried, open });
                Ok(BurialReport { node: node.to_string(), buried, open })
            }
        }
    }

    /// How the server and its store are doing. It answers within some seconds, also if the store does not work.
    pub async fn status(&self) -> StatusReport {
        let health = self.store.health().await;
        let usage = self.store.usage().await;
        let sessions = self.count_sessions().await;
        let server = match self.server_status.clone() {
            Some(server_status) => Some(smol::unblock(move || server_status()).await),
            None => None,
        };
        StatusReport::new(server, self.data.clone(), sessions, usage, health, self.store.is_shared())
    }

    /// Counts the sessions page by page, for as long as the store may take. Between two pages the store does other work.
    async fn count_sessions(&self) -> Option<SessionTotals> {
        let mut totals = SessionTotals::default();
        let mut page = PageRequest::first(PageRequest::MAX);
        let deadline = Instant::now() + self.store_timeout;
        while Instant::now() < deadline {
            let filter = UserFilter { with_sessions: true, ..UserFilter::default() };
            let users = self.within_timeout(self.store.list_users(filter, page)).await.ok()?;
            users.items.iter().for_each(|user| totals.add(user.sessions.live, user.sessions.lingering));
            match users.next {
                Some(next) => page = PageRequest { after: Some(next), limit: PageRequest::MAX },
                None => return Some(SessionTotals { complete: true, ..totals }),
            }
        }
        Some(totals)
    }

    /// Carries out a request, and reports what it did and the user's state after it.
    ///
    /// # Errors
    /// [`AdminError`] says why it was not carried out, or which part of it was not.
    pub async fn handle(&self, user: &UserId, request: &AdminRequest) -> Result<UserReport, AdminError> {
        let report = self.carry_out(user, request).await?;
        // Without a server there is nobody to sign in to.
        let is_served = self.server_status.is_some();
        let refusal = if is_served { self.store.health().await.message().map(ToOwned::to_owned) } else { None };
        Ok(UserReport { refusal, ..report })
    }

    async fn carry_out(&self, user: &UserId, request: &AdminRequest) -> Result<UserReport, AdminError> {
        let form = self.user_id_form;
        let parsed = form.parse(user.as_str());
        let user = &parsed.map_err(|error| AdminError::BadRequest(form.describe_refusal(user.as_str(), error)))?;
        match request {
            AdminRequest::Explain => {
                let report = self.report(user, Effect::default()).await?;
                let (look_alikes, logged_as) = (self.known_look_alikes(user).await, hash_of(user));
                Ok(UserReport { look_alikes, logged_as, ..report })
            }
            AdminRequest::Limit(patch) if patch.dry_run => self.dry_run(user, patch).await,
            AdminRequest::Limit(patch) => {
                let (limit, effect) = {
                    let update_lock = self.update_lock.lock_arc().await;
                    let policy = self.policy_for(user).await?;
                    let overrides = patched_overrides(policy.overrides, patch)?;
                    let effect = self.update_user(user, UserUpdate::Set(overrides), &policy, update_lock).await?;
                    (overrides.limit, effect)
                };
                let not_enforced = |why| AdminError::NotEnforced(Box::new(why));
                // Another request may change the override meanwhile. This one enforces the limit that it named.
                let effect = match limit.filter(|_| patch.enforce) {
                    Some(limit) => {
                        let target = EndTarget::Excess { limit, dry_run: false };
                        effect.and(self.end(user, target).await.map_err(not_enforced)?)
                    }
                    None => effect,
                };
                self.report_after(user, effect).await
            }
            AdminRequest::End(session) => {
                let effect = self.end(user, session.map_or(EndTarget::All, EndTarget::One)).await?;
                if effect.ended.is_empty() && session.is_some() {
                    return Err(AdminError::NoSuchSession);
                }
                self.report_after(user, effect).await
            }
            AdminRequest::Forget => {
                let update_lock = self.update_lock.lock_arc().await;
                let held = self.list(user).await?.slots;
                if held > 0 {
                    return Err(AdminError::HoldsSlots(held));
                }
                let policy = self.policy_for(user).await?;
                let effect = self.update_user(user, UserUpdate::Forget, &policy, update_lock).await?;
                self.report_after(user, effect).await
            }
        }
    }

    /// The report after a change. The change stays, even if the report fails.
    async fn report_after(&self, user: &UserId, effect: Effect) -> Result<UserReport, AdminError> {
        self.report(user, effect).await.map_err(|_| AdminError::ReportUnavailable)
    }

    async fn report(&self, user: &UserId, effect: Effect) -> Result<UserReport, AdminError> {
        let usage = self.list(user).await?;
        let policy = self.policy_for(user).await?;
        let state = StateReport::new(&policy, newest_claim(&usage.sessions), self.seen(user, &usage).await);
        let next = self.next_outcome(user, usage.sessions.to_vec(), usage.waiting, &policy);
        let beyond_limit = self.excess(user, usage.sessions.to_vec(), &policy);
        Ok(self.describe(user, &usage, state, beyond_limit, next, effect))
    }

    /// The report as it would be after this change.
    async fn dry_run(&self, user: &UserId, patch: &UserPatch) -> Result<UserReport, AdminError> {
        let usage = self.list(user).await?;
        let before = self.policy_for(user).await?;
        let policy = before.with_overrides(patched_overrides(before.overrides, patch)?);
        let seen = self.seen(user, &usage).await;
        let mut left = usage.sessions.to_vec();
        let excess = self.excess(user, left.clone(), &policy);
        let (ended, beyond_limit) = if patch.enforce { (excess, Vec::new()) } else { (Vec::new(), excess) };
        // The next session meets only the sessions that would be left.
        left.retain(|session| !ended.contains(&session.session));
        let next = self.next_outcome(user, left, usage.waiting, &policy);
        let effect = Effect {
            is_change: policy.overrides != before.overrides || !ended.is_empty(),
            before: Some((before, seen)),
            connections_before: patch.enforce.then_some(usage.slots),
            ended,
        };
        let state = StateReport::new(&policy, newest_claim(&usage.sessions), seen);
        let report = self.describe(user, &usage, state, beyond_limit, next, effect);
        let change = match report.change {
            Change::Made => Change::WouldBeMade,
            change @ (Change::None | Change::WouldBeMade) => change,
        };
        Ok(UserReport { dry_run: true, change, ..report })
    }

    /// Whether the user was seen, as the store notes it or because the user has these sessions. `None` if the store cannot say
    /// it: the rest of a report does not depend on it.
    async fn seen(&self, user: &UserId, usage: &SlotUsage) -> Option<SeenState> {
        let state = self.within_timeout(self.store.find_user(user.clone())).await;
        let noted = state.ok().map(|state| state.seen);
        let grants = || usage.sessions.iter().map(|session| session.since);
        let noted = noted.or_else(|| (!usage.sessions.is_empty()).then_some(SeenState::Unreadable));
        noted.map(|seen| seen.with_grants(grants()))
    }

    /// The sessions beyond the limit that is set for the user.
    fn excess(&self, user: &UserId, sessions: Vec<SessionRecord>, policy: &AdmissionPolicy) -> Vec<SessionId> {
        let Some(limit) = policy.overrides.limit else { return Vec::new() };
        let target = EndTarget::Excess { limit, dry_run: true };
        match simulate(sessions, &self.end_command(user, target), policy).0 {
            Outcome::Ended { sessions, .. } => sessions.into_vec(),
            Outcome::Granted { .. }
            | Outcome::Denied(_)
            | Outcome::Waiting(_)
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::NotRenewed(_)
            | Outcome::Rejected(_)
            | Outcome::Unknown => Vec::new(),
        }
    }

    /// What one more session would get while these hold slots, and `waiting` sessions are in line. Each of those counts as one
    /// slot.
    fn next_outcome(
        &self,
        user: &UserId,
        holders: Vec<SessionRecord>,
        waiting: u16,
        policy: &AdmissionPolicy,
    ) -> NextOutcome {
        let (user, session) = (user.clone(), self.admin_session());
        let (limit, at) = (newest_claim(&holders), self.clock.now());
        let acquire = StoreCommand::Acquire { user, session, limit, at, options: None };
        let sessions: Vec<_> = holders.iter().map(|holder| holder.session).collect();
        let (outcome, record) = simulate(holders, &acquire, policy);
        let slots = outcome.slots().unwrap_or_default();
        let is_behind_line = slots + u32::from(waiting) > policy.limit_for(limit).0.slots();
        if matches!(outcome, Outcome::Granted { .. }) && !(is_behind_line && record.sessions().len() > sessions.len()) {
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
        state: StateReport,
        beyond_limit: Vec<SessionId>,
        next: NextOutcome,
        effect: Effect,
    ) -> UserReport {
        let session_report = |entry: &SessionRecord| {
            let claimed_limit = entry.claim.map(SlotLimit::slots);
            let session = SessionSummary::detailed(entry, None);
            let from = self.address_of.as_ref().and_then(|address_of| address_of(session.id));
            let client_prefix = from.map(|address| ClientPrefix::from(address).to_string());
            SessionReport { session, claimed_limit, from, client_prefix }
        };
        let Effect { is_change, before, connections_before, ended } = effect;
        // With the same claim as the state now: only the overrides have changed.
        let claim = newest_claim(&usage.sessions);
        let before = before.map(|(policy, seen)| StateReport::new(&policy, claim, seen));
        let ids = |sessions: Vec<SessionId>| sessions.iter().map(ToString::to_string).collect();
        UserReport {
            user: user.clone(),
            state,
            connections: usage.slots,
            waiting: usage.waiting,
            sessions: usage.sessions.iter().map(session_report).collect(),
            beyond_limit: ids(beyond_limit),
            next,
            refusal: None,
            ended: ids(ended),
            dry_run: false,
            change: if is_change { Change::Made } else { Change::None },
            before,
            connections_before,
            look_alikes: Vec::new(),
            logged_as: None,
        }
    }

    async fn list(&self, user: &UserId) -> Result<SlotUsage, AdminError> {
        let (user, session) = (user.clone(), self.admin_session());
        let list = StoreCommand::ListSessions {
            user,
            session,
            limit: None,
            is_unbounded: true,
            watch: None,
            at: self.clock.now(),
        };
        match self.submit(list).await {
            Ok(Outcome::Listed(usage)) => Ok(*usage),
            Err(AdminError::Store(error)) => Err(AdminError::Store(error)),
            Ok(_) | Err(_) => Err(AdminError::Unanswered),
        }
    }

    fn end_command(&self, user: &UserId, target: EndTarget) -> StoreCommand {
        let (user, session) = (user.clone(), self.admin_session());
        let reason = match target {
            EndTarget::Excess { limit, .. } if limit.slots() == 0 => EndReason::Banned,
            EndTarget::Excess { .. } => EndReason::LimitLowered,
            EndTarget::One(_) | EndTarget::All => EndReason::ByOperator,
        };
        StoreCommand::EndSessions { user, session, target, reason, at: self.clock.now() }
    }

    async fn end(&self, user: &UserId, target: EndTarget) -> Result<Effect, AdminError> {
        if let Outcome::Ended { sessions, before, .. } = self.submit(self.end_command(user, target)).await? {
            if !sessions.is_empty() {
                log_event!(sessions_ended { user, ended: sessions.len() });
            }
            Ok(Effect {
                is_change: !sessions.is_empty(),
                before: None,
                connections_before: Some(before.into()),
                ended: sessions.into_vec(),
            })
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
        let outcome = self.within_timeout(async { Ok(outcome.await) }).await.map_err(undone)?;
        if let Outcome::Rejected(error) = outcome { Err(AdminError::Store(error)) } else { Ok(outcome) }
    }

    async fn policy_for(&self, user: &UserId) -> Result<AdmissionPolicy, AdminError> {
        self.within_timeout(self.store.policy_for(user)).await.map_err(unanswered)
    }

    /// Holds `update_lock` until the store has made the change or has not, even if this stops waiting before. `policy` is the
    /// one in force for the user.
    async fn update_user(
        &self,
        user: &UserId,
        update: UserUpdate,
        policy: &AdmissionPolicy,
        update_lock: MutexGuardArc<()>,
    ) -> Result<Effect, AdminError> {
        let (sender, receiver) = smol::channel::bounded(1);
        let completion = Completion::new(move |result| {
            drop(update_lock);
            // Fails if this stopped waiting.
            let _late = sender.try_send(result);
        });
        self.store.update_user(user.clone(), update, completion);
        let result = async { receiver.recv().await.unwrap_or(Err(StoreFailure::InDoubt)) };
        let before = self.within_timeout(result).await.map_err(|failure| match failure {
            StoreFailure::Rejected(error @ (StoreError::Overloaded | StoreError::Full)) => AdminError::Store(error),
            // The operator looks before ordering it again: also where a store that fails says that nothing was done.
            StoreFailure::Rejected(StoreError::Failed) | StoreFailure::InDoubt => AdminError::InDoubt,
            StoreFailure::TimedOut => AdminError::StoreTimedOut,
        })?;
        let is_change = update.changes(before);
        if is_change {
            match update {
                UserUpdate::Set(overrides) => {
                    log_event!(overrides_set {
                        user,
                        limit: overrides.limit.map(display),
                        when_full: overrides.when_full.map(WhenFull::name),
                    });
                }
                UserUpdate::Forget => log_event!(user_forgotten { user }),
            }
        }
        let before = (policy.with_overrides(before.overrides), Some(before.seen));
        Ok(Effect { is_change, before: Some(before), ..Effect::default() })
    }

    pub(super) async fn within_timeout<T>(
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
        StoreFailure::InDoubt | StoreFailure::TimedOut => AdminError::Unanswered,
    }
}

/// Why a command may not have been carried out.
fn undone(failure: StoreFailure) -> AdminError {
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
        // A session may be within the limit that its own token claims.
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
/// The limit that the token of the newest session claims.
fn newest_claim(sessions: &[SessionRecord]) -> Option<SlotLimit> {
    sessions.last()?.claim
}
