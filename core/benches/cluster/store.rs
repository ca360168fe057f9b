//! A shard of the shared store: its buckets, what it counts, and what it forgets.

use std::collections::BTreeMap;

use session_core::cluster::{Answer, AnswerBody, BucketKeys, HistoryId, Published, Request};

use crate::traffic::Traffic;

/// How long the store needs for a request, in microseconds: a script in which Redis also looks up its history.
const REQUEST_US: u64 = 7;

/// How long the store needs to look at the 250 records of a page, in microseconds: `HSCAN` and a loop in Lua, in Redis 7.0 on a
/// machine that was busy.
const PAGE_US: u64 = 500;

/// How long the store needs for each record of a page that it answers, in microseconds.
const PAGE_RECORD_US: u64 = 1;

/// One primary. It does one request after another.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) buckets: BTreeMap<u16, BucketKeys>,
    pub(crate) traffic: Traffic,
    /// When it applied the last write.
    pub(crate) last_write: u64,
    history: u8,
    busy_until: u64,
}

impl Shard {
    /// Applies requests that arrive in one pipeline. Returns the answers, and when the last one is ready.
    pub(crate) fn apply(
        &mut self,
        requests: impl Iterator<Item = (u16, Request)>,
        now: u64,
        published: &mut Vec<(u16, Published)>,
    ) -> (Vec<Answer>, u64) {
        let mut ready = self.busy_until.max(now);
        let history = HistoryId([self.history; 20]);
        let mut answers = Vec::new();
        for (bucket, request) in requests {
            let mut to_publish = Vec::new();
            let body = self.buckets.entry(bucket).or_default().apply(&request, history, &mut to_publish);
            published.extend(to_publish.into_iter().map(|published| (bucket, published)));
            ready += REQUEST_US;
            if let AnswerBody::Page(page) = &body {
                ready += PAGE_US + PAGE_RECORD_US * page.records.len() as u64;
            }
            if matches!(&body, AnswerBody::Record(answer) if answer.is_written) {
                self.last_write = ready;
            }
            self.traffic.count(&request, &body);
            answers.push(Answer { history, body });
        }
        self.traffic.pipelines += 1;
        self.busy_until = ready;
        (answers, ready)
    }

    /// Another history begins, with this data.
    pub(crate) fn fail_over(&mut self, buckets: BTreeMap<u16, BucketKeys>) {
        self.buckets = buckets;
        self.history += 1;
    }

    /// Whether the gate of each of these buckets is open.
    pub(crate) fn is_open(&self, mut buckets: impl Iterator<Item = u16>) -> bool {
        buckets.all(|bucket| self.buckets.get(&bucket).is_some_and(BucketKeys::is_open))
    }
}
