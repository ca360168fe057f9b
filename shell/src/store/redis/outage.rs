//! Lost connections to the shared store. Several threads may have connections to a server, and it is spoken of once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::locator::ServerName;

/// The servers that cannot be reached on all connections.
#[derive(Default)]
pub(super) struct Outages(Mutex<BTreeMap<ServerName, Outage>>);

struct Outage {
    since: Instant,
    /// How many connections are lost.
    lost: usize,
}

impl Outages {
    /// A connection to this server is lost. Whether it is the first one.
    pub(super) fn lost(&self, server: &ServerName) -> bool {
        let mut outages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = outages.entry(server.clone()).or_insert_with(|| Outage { since: Instant::now(), lost: 0 });
        outage.lost += 1;
        outage.lost == 1
    }

    /// A lost connection to this server is there again, or not needed any more. If it is the last one: how long one was lost.
    pub(super) fn over(&self, server: &ServerName) -> Option<Duration> {
        let mut outages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = outages.get_mut(server)?;
        outage.lost -= 1;
        let is_last = outage.lost == 0;
        let lasted = is_last.then(|| outage.since.elapsed());
        if is_last {
            outages.remove(server);
        }
        lasted
    }
}

#[cfg(test)]
mod tests {
    use super::{Outages, ServerName};

    #[test]
    fn outage_has_one_beginning_and_one_end() {
        let outages = Outages::default();
        let (one, other) = (ServerName::from("one"), ServerName::from("other"));
        assert_eq!([&one, &one, &other].map(|server| outages.lost(server)), [true, false, true]);
        assert_eq!([&one, &one, &other].map(|server| outages.over(server).is_some()), [false, true, true]);
        assert!(outages.lost(&one), "the next one");
    }
}
