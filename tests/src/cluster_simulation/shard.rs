//! A shared store that fails as a real one does: a primary, its replica, and what they forget.

use std::collections::BTreeMap;

use session_core::cluster::{Answer, AnswerBody, BucketKeys, HistoryId, Published, Request};
use session_core::ledger::StoreError;

use super::applied::AppliedChecks;

/// The buckets of one primary.
pub(super) type Buckets = BTreeMap<u16, BucketKeys>;

/// A primary with a replica that lags behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Shard {
    /// What the primary has.
    pub(super) primary: Buckets,
    history: u64,
    last_history: u64,
    /// What the replica has: everything up to some request.
    replica: Buckets,
    /// What was saved to the disk, some time ago.
    saved: Buckets,
    /// A former primary that some nodes still reach, with its history and since when it is cut off.
    pub(super) former: Option<(Buckets, u64, u64)>,
    /// How long a former primary takes writes.
    pub(super) max_lag: u64,
    /// Until when each request fails.
    pub(super) fails_until: u64,
    /// Until when it takes no writes: it is a replica, or has no memory left.
    pub(super) read_only_until: u64,
    checks: AppliedChecks,
    /// What does not hold of a request that the primary has applied.
    pub(super) broken: Option<String>,
}

/// How many records a page of a scan has.
const PAGE: usize = 1;

/// How long a primary that is cut off from its replica goes on to take writes, if it is set up to stop:
/// `min-replicas-max-lag`. With the fence it is shorter than the lease.
pub(super) const MAX_LAG: u64 = 40;

fn history_id(number: u64) -> HistoryId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    HistoryId(bytes)
}

impl Shard {
    /// An empty one.
    pub(super) fn new(max_lag: u64, checks: AppliedChecks) -> Self {
        Self { max_lag, checks, ..Self::default() }
    }

    /// Applies a request at the primary, or at the former one.
    pub(super) fn apply(
        &mut self,
        bucket: u16,
        request: &Request,
        at_former: bool,
        now: u64,
        published: &mut Vec<Published>,
    ) -> Answer {
        let mut is_former = false;
        let (buckets, history) = match &mut self.former {
            Some((_, history, since))
                if at_former && now - *since > self.max_lag && !matches!(request, Request::Read(_)) =>
            {
                return Answer { history: history_id(*history), body: AnswerBody::Failed(StoreError::Failed) };
            }
            Some((buckets, history, _)) if at_former => {
                is_former = true;
                (buckets, *history)
            }
            _ => (&mut self.primary, self.history),
        };
        let history = history_id(history);
        let reads = matches!(request, Request::Read(_) | Request::Scan { .. } | Request::ReadOverrides);
        if now < self.fails_until || (now < self.read_only_until && !reads) {
            return Answer { history, body: AnswerBody::Failed(StoreError::Failed) };
        }
        let keys = buckets.entry(bucket).or_insert_with(|| BucketKeys::with_page(PAGE));
        if is_former {
            // What it does is no history of the primary's.
            return Answer { history, body: keys.apply(request, history, published) };
        }
        let body = self.checks.apply(bucket, keys, request, history, published).unwrap_or_else(|what| {
            self.broken = Some(what);
            AnswerBody::Failed(StoreError::Failed)
        });
        Answer { history, body }
    }

    /// The replica catches up.
    pub(super) fn replicate(&mut self) {
        self.replica.clone_from(&self.primary);
    }

    /// The primary saves what it has.
    pub(super) fn save(&mut self) {
        self.saved.clone_from(&self.primary);
    }

    fn begin_history(&mut self) {
        self.last_history += 1;
        self.history = self.last_history;
    }

    /// The replica becomes the primary. What it had not received is lost.
    pub(super) fn fail_over(&mut self) {
        self.primary.clone_from(&self.replica);
        self.checks.forgot();
        self.begin_history();
    }

    /// The replica becomes the primary, and the former one goes on for those who reach it.
    pub(super) fn split(&mut self, now: u64) {
        let before = (std::mem::take(&mut self.primary), self.history, now);
        self.fail_over();
        self.former = Some(before);
    }

    /// The primary restarts with nothing.
    pub(super) fn restart_empty(&mut self) {
        self.primary.clear();
        self.replica.clear();
        self.checks.forgot();
        self.begin_history();
    }

    /// The primary restarts with what it had saved.
    pub(super) fn restart_saved(&mut self) {
        self.primary.clone_from(&self.saved);
        self.replica.clone_from(&self.saved);
        self.checks.forgot();
        self.begin_history();
    }

    /// `FLUSHALL`: everything is gone, and the history stays.
    pub(super) fn flush(&mut self) {
        self.primary.clear();
        self.replica.clear();
        self.checks.forgot();
    }
}
