//! What owns `live/`: it applies batches of commands, each in one transaction, and then answers. It also answers queries, and
//! sweeps. It is used by one thread at a time ([`SharedWriter`](super::shared_writer::SharedWriter)).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use session_core::Timestamp;
use session_core::ledger::StoreCommand;
use session_core::ledger::{EndedSession, Outcome, StoreError};

use super::apply_context::ApplyContext;
use super::ballast_file::BallastFile;
use super::batch::{self, BatchError, BatchResult, EndedOfUser};
use super::directory_watch::DirectoryState;
use super::environment::{Environment, ReopeningEnv};
use super::error::store_error;
use super::live_query::{self, LiveHealth, LiveQuery};
use super::queue::{self, QueuedCommand};
use super::sweep::{FirstPass, SweepPosition, SweepStep};
use super::users::SeenSender;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};
use crate::store::failure::StoreFailure;
use crate::store::notifier::log_displaced;
use crate::store::shared::{NodeContext, SharedPolicy};

/// How many commands one transaction applies, at most.
const BATCH_MAX: usize = 1024;

/// How many records a step of the sweep looks at: beside a batch of commands, and without one.
const SWEEP_BUSY: usize = 32;
const SWEEP_IDLE: usize = 256;

/// The shortest time between two passes of the sweep.
const SWEEP_AGAIN: Duration = Duration::from_secs(60);

/// How long the sweep waits after a step, and after one that failed.
const SWEEP_PAUSE: Duration = Duration::from_millis(2);
const SWEEP_RETRY: Duration = Duration::from_secs(1);

/// Owns the environment of `live/`.
pub(super) struct Writer {
    live: ReopeningEnv,
    context: NodeContext,
    directory: DirectoryState,
    started_at: Timestamp,
    seen_sender: SeenSender,
    ballast_file: BallastFile,
    /// Whether sessions may linger in records, so that another pass is needed.
    lingers: bool,
    sweep: SweepPosition,
    first_pass: FirstPass,
    /// Whether a record was met that cannot be read.
    has_unreadable: bool,
    /// When the sweep's next step is due.
    sweep_at: Instant,
    /// How many commands one transaction applies, at most.
    batch: usize,
    log: LogRateLimiter,
}

impl Writer {
    pub(super) fn new(
        mut live: ReopeningEnv,
        context: NodeContext,
        seen_sender: SeenSender,
        directory: DirectoryState,
    ) -> Self {
        let batch = live.environment().map_or(BATCH_MAX, batch_for);
        let (sweep, sweep_at) = (SweepPosition::Start, Instant::now());
        let ballast_file = BallastFile::create(live.directory());
        let started_at = context.clock().now();
        let (lingers, log) = (false, LogRateLimiter::default());
        Self {
            live,
            context,
            directory,
            started_at,
            seen_sender,
            ballast_file,
            lingers,
            sweep,
            first_pass: FirstPass::new(),
            has_unreadable: false,
            sweep_at,
            batch,
            log,
        }
    }

    /// How many commands one transaction applies, at most.
    pub(super) const fn batch(&self) -> usize {
        self.batch
    }

    /// How long the store's thread may wait for its next turn. When the sweep is over, it looks from time to time whether
    /// sessions linger.
    pub(super) fn wait_timeout(&self) -> Duration {
        match self.sweep {
            SweepPosition::Over => SWEEP_AGAIN,
            SweepPosition::Start | SweepPosition::After(_) => self.sweep_at.saturating_duration_since(Instant::now()),
        }
    }

    /// Applies the commands, answers and removes them.
    pub(super) fn serve(&mut self, commands: &mut VecDeque<QueuedCommand>) {
        self.apply(commands, false);
    }

    /// As [`Writer::serve`], and takes a step of the sweep with them, if it is due.
    pub(super) fn serve_and_sweep(&mut self, commands: &mut VecDeque<QueuedCommand>) {
        self.apply(commands, true);
        self.sweep_again();
    }

    fn apply(&mut self, commands: &mut VecDeque<QueuedCommand>, may_sweep: bool) {
        // From here on their callers cannot withdraw them.
        commands.retain_mut(|(_, completion)| completion.claim());
        let is_due = may_sweep && self.is_sweep_due();
        let policy = self.context.policy().clone();
        let context = self.apply_context(&policy);
        let submitted: Vec<&StoreCommand> = commands.iter().map(|(command, _)| command).collect();
        let records = if submitted.is_empty() { SWEEP_IDLE } else { SWEEP_BUSY }.min(self.batch);
        let step = is_due.then_some(SweepStep { from: &self.sweep, records });
        let disk_is_full = !self.ballast_file.exists();
        let refuse = self.directory.is_lost().then_some(StoreError::Failed);
        let applied = loop {
            let Some(live) = self.live.environment() else {
                queue::reject(commands.drain(..), StoreError::Failed);
                return;
            };
            match batch::apply(live, context, &submitted, refuse, disk_is_full, step, &mut self.first_pass) {
                Err(BatchError::NotApplied(heed::Error::Mdb(heed::MdbError::MapFull))) if self.live.grow() => {}
                applied => break applied,
            }
        };
        // Small batches from now on, if the map could not grow.
        self.batch = self.live.environment().map_or(self.batch, batch_for);
        let outcomes = match applied {
            Ok(result) => self.accept(result),
            Err(BatchError::NotApplied(error)) => {
                let cause = store_error(&error, self.live.directory());
                let reason = cause.message();
                log_limited!(self.log, batch_failed { reason, error: display(&error) });
                // A full map is not a full disk, and a disk that fails does not need the room.
                if cause == StoreError::Full && matches!(error, heed::Error::Io(_)) {
                    self.ballast_file.remove();
                }
                self.retry(&submitted, cause)
            }
            Err(BatchError::InDoubt(error, outcomes, ended)) => self.fail_batch(&error, outcomes, ended),
        };
        let mut granted = Vec::new();
        for ((command, completion), outcome) in commands.drain(..).zip(outcomes) {
            let is_granted = matches!(outcome, Outcome::Granted { .. });
            completion.answer(outcome);
            if is_granted && let StoreCommand::Acquire { user, at, .. } = command {
                granted.push((user, at));
            }
        }
        self.seen_sender.send(granted);
    }

    /// Whether the sweep's next step is due. If it fails, the next one is due some time later.
    fn is_sweep_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.sweep != SweepPosition::Over && now >= self.sweep_at;
        if is_due {
            self.sweep_at = now + SWEEP_RETRY;
        }
        is_due
    }

    /// Answers queries. A query sees every command that was answered before it was asked.
    pub(super) fn answer(&mut self, queries: impl IntoIterator<Item = LiveQuery>) {
        for query in queries {
            match query {
                LiveQuery::ListHolders(range, completion) => {
                    let policy = self.context.policy().clone();
                    let context = self.apply_context(&policy);
                    completion.answer(match self.live.environment() {
                        Some(live) => live_query::list_holders(live, context, &range),
                        None => Err(StoreFailure::Rejected(StoreError::Failed)),
                    });
                }
                LiveQuery::ListSessions(user, page, completion) => {
                    let policy = self.context.policy().clone();
                    let context = self.apply_context(&policy);
                    let page = match self.live.environment() {
                        Some(live) => live_query::list_sessions(live, context, user.as_ref(), &page),
                        None => Err(StoreFailure::Rejected(StoreError::Failed)),
                    };
                    completion.answer(page);
                }
                LiveQuery::Health(completion) => completion.answer(Ok(self.health())),
                LiveQuery::Usage(completion) => {
                    let usage = self.live.environment().and_then(|live| live.usage().ok());
                    completion.answer(usage.ok_or(StoreFailure::Rejected(StoreError::Failed)));
                }
            }
        }
    }

    fn health(&mut self) -> LiveHealth {
        let (is_ballast_missing, is_lost) = (!self.ballast_file.exists(), self.directory.is_lost());
        let has_unreadable = self.has_unreadable;
        let closed = LiveHealth { is_closed: true, is_full: false, is_ballast_missing, is_lost, has_unreadable };
        let Some(live) = self.live.environment() else { return closed };
        match batch::has_no_room(live, is_ballast_missing) {
            Ok(is_full) => LiveHealth { is_closed: false, is_full, ..closed },
            Err(_) => {
                self.live.check();
                closed
            }
        }
    }

    /// Schedules another pass of the sweep, for when the sessions that linger now have lapsed.
    fn sweep_again(&mut self) {
        if self.sweep == SweepPosition::Over && self.lingers {
            self.lingers = false;
            (self.sweep, self.sweep_at) =
                (SweepPosition::Start, Instant::now() + self.context.policy().linger().max(SWEEP_AGAIN));
        }
    }

    fn apply_context<'a>(&self, policy: &'a SharedPolicy) -> ApplyContext<'a> {
        ApplyContext { node: self.context.node(), started_at: self.started_at, now: self.context.clock().now(), policy }
    }

    /// Applies at least the releases after a failure such as a full map or a full disk: all at once, or else by halves, down
    /// to one by one. Acquires are rejected.
    fn retry(&mut self, submitted: &[&StoreCommand], error: StoreError) -> Vec<Outcome> {
        // Without the sweep, which may have caused the failure.
        let policy = self.context.policy().clone();
        let context = self.apply_context(&policy);
        let Some(live) = self.live.environment() else {
            return vec![Outcome::Rejected(StoreError::Failed); submitted.len()];
        };
        match batch::apply(live, context, submitted, Some(error), true, None, &mut self.first_pass) {
            Ok(result) => self.accept(result),
            Err(BatchError::NotApplied(_)) if submitted.len() > 1 => {
                let (first, second) = submitted.split_at(submitted.len() / 2);
                [self.retry(first, error), self.retry(second, error)].concat()
            }
            Err(BatchError::NotApplied(error)) => {
                log_limited!(self.log, release_failed { error: display(&error) });
                self.live.check();
                vec![Outcome::Rejected(store_error(&error, self.live.directory())); submitted.len()]
            }
            Err(BatchError::InDoubt(error, outcomes, ended)) => self.fail_batch(&error, outcomes, ended),
        }
    }

    fn accept(&mut self, result: BatchResult) -> Vec<Outcome> {
        if let Some(sweep) = result.sweep {
            if sweep == SweepPosition::Over {
                self.first_pass.end();
            }
            self.sweep = sweep;
            self.sweep_at = Instant::now() + SWEEP_PAUSE;
        }
        self.lingers |= result.lingers;
        self.notify(result.ended);
        self.context.hint(result.hints);
        for (user, session) in result.lapsed {
            log_event!(slot_lapsed { user: &*String::from_utf8_lossy(&user), session: display(session) });
        }
        for (user, displaced) in result.displaced {
            for EndedSession { session, reason } in displaced {
                log_displaced(&user, session, &reason);
            }
        }
        if let Some((user, error)) = result.unreadable {
            self.has_unreadable = true;
            log_limited!(self.log, record_unreadable { user: &*String::from_utf8_lossy(&user), error: display(error) });
        }
        result.outcomes
    }

    fn fail_batch(&mut self, error: &heed::Error, outcomes: Vec<Outcome>, ended: Vec<EndedOfUser>) -> Vec<Outcome> {
        log_limited!(self.log, commit_in_doubt { error: display(error) });
        // A session told it was evicted may still hold its slot here; it then releases it.
        self.notify(ended);
        // The batch may have left lingering sessions.
        self.lingers = true;
        self.live.check();
        outcomes
    }

    /// Notifies the sessions that a batch ended, before any command of the batch is answered.
    fn notify(&self, ended: Vec<EndedOfUser>) {
        for (user, ended) in ended {
            self.context.notify(&user, ended);
        }
    }
}

/// The batch size for a map: in a small one few commands, so that the tenth that is kept for releases suffices for them.
///
/// LMDB copies the pages it changes. For one record these are the path from the root, a neighbour to merge with, and the list
/// of free pages: eight at most, and four more for a record that is split ([`records`](super::records)). It cannot reuse the
/// pages that the last transaction freed, so two batches must fit. A map that can still grow counts with its largest size.
fn batch_for(environment: &Environment) -> usize {
    const PAGES: usize = 12;
    (environment.map_pages() / 10 / 2 / PAGES).clamp(1, BATCH_MAX)
}

#[cfg(test)]
mod tests;
