//! Scans are not answered as by the reference: another order, and pages of another length. But each record that a page has is that of
//! the reference, and what has a record from the first page to the last is in one of them.

use std::collections::{BTreeMap, BTreeSet};

use session_core::cluster::{AnswerBody, BucketKeys, PageAnswer, Request, ScanPosition};
use session_core::ledger::UserRecord;
use session_core::{NodeId, UserId};

/// The scans that are under way.
#[derive(Debug, Default)]
pub(super) struct Scans(BTreeMap<(usize, u16), Scan>);

#[derive(Debug)]
struct Scan {
    next: ScanPosition,
    except: Vec<NodeId>,
    lingering: bool,
    /// The users who have to be in it still.
    missing: BTreeSet<UserId>,
}

fn is_wanted(record: &UserRecord, except: &[NodeId], lingering: bool) -> bool {
    (lingering && record.has_lingering()) || record.connected_nodes().any(|node| !except.contains(&node))
}

impl Scans {
    /// The store has forgotten something.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// The record of a user was written, or something else was done to this bucket.
    pub(super) fn changed(&mut self, bucket: u16, user: &UserId, keys: &BucketKeys) {
        for (_, scan) in self.0.iter_mut().filter(|((_, of), _)| *of == bucket) {
            if !is_wanted(&keys.record(user), &scan.except, scan.lingering) {
                scan.missing.remove(user);
            }
        }
    }

    /// A page that a connection has asked for. `None` if its answer is lost.
    pub(super) fn page(
        &mut self,
        connection: usize,
        bucket: u16,
        request: &Request,
        page: Option<&PageAnswer>,
        keys: &BucketKeys,
    ) -> Result<(), String> {
        let Request::Scan { from, except, lingering } = request else { return Ok(()) };
        let before = self.0.remove(&(connection, bucket));
        let Some(page) = page else { return Ok(()) };
        let all = keys.users().filter(|user| is_wanted(&keys.record(user), except, *lingering)).cloned();
        let mut missing: BTreeSet<_> = match (from, before) {
            (None, _) => all.collect(),
            (Some(from), Some(before)) if before.next == *from => {
                all.filter(|user| before.missing.contains(user)).collect()
            }
            // It did not begin on this connection.
            (Some(_), _) => BTreeSet::new(),
        };
        let contents = keys.contents();
        for (user, stamp, record) in &page.records {
            if contents.records.get(user) != Some(&(*stamp, record.clone())) {
                return Err(format!("the page has another record of {user} than {:?}", contents.records.get(user)));
            }
            if !is_wanted(record, except, *lingering) {
                return Err(format!("the page has the record of {user}, which is left out"));
            }
            missing.remove(user);
        }
        if page.generation != contents.meta {
            return Err(format!("the page names another generation than {:?}", contents.meta));
        }
        match page.next {
            Some(next) => {
                let scan = Scan { next, except: except.clone(), lingering: *lingering, missing };
                self.0.insert((connection, bucket), scan);
                Ok(())
            }
            None if missing.is_empty() => Ok(()),
            None => Err(format!("the scan lacks {missing:?}")),
        }
    }
}

/// The page in an answer.
pub(super) fn page_of(answer: &AnswerBody) -> Option<&PageAnswer> {
    if let AnswerBody::Page(page) = answer { Some(page) } else { None }
}
