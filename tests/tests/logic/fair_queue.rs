//! The fair queue, whatever joins, leaves and ends in whatever order.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use session_core::fair_queue::{FairQueue, Ticket};

#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    Start,
    /// Ends a turn under way, after this many microseconds.
    End(prop::sample::Index, u64),
    /// Work leaves before its turn.
    Leave(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0..6_u8).prop_map(Step::Join),
        4 => Just(Step::Start),
        3 => (index(), 0..10_000_u64).prop_map(|(index, micros)| Step::End(index, micros)),
        1 => index().prop_map(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn queue_keeps_its_promises(at_a_time in 1..4_usize, steps in vec(step(), 0..300)) {
        let mut queue = FairQueue::new(NonZeroUsize::new(at_a_time).unwrap());
        let mut waiting = BTreeMap::<Ticket, u8>::new();
        let mut running = BTreeMap::<Ticket, u8>::new();
        for step in steps {
            match step {
                Step::Join(client) => drop(waiting.insert(queue.join(client), client)),
                Step::Start => {
                    let started = queue.start();
                    prop_assert_eq!(started.is_some(), running.len() < at_a_time && !waiting.is_empty());
                    if let Some(ticket) = started {
                        let client = waiting.remove(&ticket).unwrap();
                        prop_assert!(waiting.iter().all(|(other, of)| *of != client || *other > ticket), "in order");
                        let under_way = |of: u8| running.values().filter(|&&client| client == of).count();
                        let fewest = waiting.values().map(|&of| under_way(of)).min();
                        prop_assert!(fewest.is_none_or(|fewest| under_way(client) <= fewest), "spread over clients");
                        running.insert(ticket, client);
                    }
                }
                Step::End(index, micros) if !running.is_empty() => {
                    let ticket = *index.get(&running.keys().collect::<Vec<_>>());
                    let ticket = *ticket;
                    running.remove(&ticket);
                    queue.end(ticket, Duration::from_micros(micros));
                }
                Step::Leave(index) if !waiting.is_empty() => {
                    let ticket = **index.get(&waiting.keys().collect::<Vec<_>>());
                    waiting.remove(&ticket);
                    queue.end(ticket, Duration::ZERO);
                }
                Step::End(..) | Step::Leave(_) => {}
            }
            prop_assert_eq!((queue.running(), queue.len()), (running.len(), waiting.len() + running.len()));
        }
    }

    /// Clients that always have work queued get the same time, to within two of the longest turns, whatever each turn takes.
    #[test]
    fn busy_clients_get_equal_time(costs in vec(1..5000_u64, 5), turns in 200..400_u64) {
        let mut queue = FairQueue::new(NonZeroUsize::MIN);
        let mut owners = BTreeMap::new();
        let mut used = [0_u64; 5];
        for client in 0..5_usize {
            owners.insert(queue.join(client), client);
        }
        for _ in 0..turns {
            let ticket = queue.start().unwrap();
            let client = owners[&ticket];
            owners.insert(queue.join(client), client);
            used[client] += costs[client];
            queue.end(ticket, Duration::from_micros(costs[client]));
        }
        let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
        prop_assert!(most - least <= 2 * 5000, "{used:?}");
    }
}
