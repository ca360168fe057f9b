//! Random scenarios in the core simulation: its invariants hold, and every slot becomes free.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use arbitrary::Unstructured;
use proptest::collection::vec;
use proptest::prelude::*;
use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{AdmissionPolicy, SlotLimit};
use tests::core_simulation::{CoreSimulation, Message, Op, Scenario, StoreFault};
use tests::policies::policy;
use tests::values::fuzz_seeds;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_limit_and_leaks_no_slot(limit in 0..=4_u32, bits: u8, ops in vec(op(), 0..160)) {
        CoreSimulation::run(policy(SlotLimit::new(limit).unwrap(), bits), &ops);
    }

    /// Few connections authenticate at once, so that most scenarios reach the limit.
    #[test]
    fn concurrent_newcomers_keep_the_limit(limit in 1..=3_u32, bits: u8, faults in vec((0..8_u8, fault()), 0..80)) {
        let mut ops = Vec::new();
        for who in 0..8 {
            ops.push(Op::Connect);
            ops.push(Op::Send { client: who, message: Message::Authenticate { user: 0 } });
        }
        for (which, fault) in faults {
            ops.push(Op::Store { which, fault });
            ops.push(Op::Send { client: which, message: Message::Bye });
            ops.push(Op::Connect);
            ops.push(Op::Send { client: 7, message: Message::Authenticate { user: 0 } });
        }
        CoreSimulation::run(policy(SlotLimit::new(limit).unwrap(), bits), &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 100_000, ..ProptestConfig::default() })]

    /// Newcomers take the place of clients whose sockets take no data, and of each other before they are told.
    #[test]
    fn newcomers_wait_for_stalled_clients(limit in 1..=3_u32, bits: u8, steps in vec((0..8_u8, 0..12_u8), 0..80)) {
        let mut simulation = CoreSimulation::new(policy(SlotLimit::new(limit).unwrap(), bits | EVICT_OLDEST));
        for (kind, which) in steps {
            match kind {
                0..4 => sign_in(&mut simulation),
                4 => run(&mut simulation, &Op::Store { which, fault: StoreFault::Apply }),
                5 | 6 => run(&mut simulation, &Op::Stall { client: which }),
                _ => run(&mut simulation, &Op::Pass { millis: u16::from(which) * 100 }),
            }
        }
        simulation.check_recovery();
    }
}

/// See [`policy`].
const EVICT_OLDEST: u8 = 1;

fn run(simulation: &mut CoreSimulation, op: &Op) {
    simulation.step(op);
    simulation.check();
}

/// A client connects and authenticates, and the store applies its next commands.
fn sign_in(simulation: &mut CoreSimulation) {
    run(simulation, &Op::Connect);
    let Some(newest) = simulation.open_connections().checked_sub(1) else { return };
    let client = u8::try_from(newest).unwrap();
    run(simulation, &Op::Send { client, message: Message::Authenticate { user: 0 } });
    for _ in 0..3 {
        run(simulation, &Op::Store { which: 0, fault: StoreFault::Apply });
    }
}

/// *a* is told, and its socket takes no data. *b* evicts *a*, *c* evicts *b*. *b* is gone at once, since it was never told.
/// *c* is told when the socket of *a* is cut.
#[test]
fn newcomer_waits_for_more_than_the_one_it_evicted() {
    let mut simulation = CoreSimulation::new(policy(SlotLimit::new(1).unwrap(), EVICT_OLDEST));
    sign_in(&mut simulation);
    let a = simulation.told_sessions();
    assert_eq!(a.len(), 1);
    run(&mut simulation, &Op::Stall { client: 0 });
    sign_in(&mut simulation);
    sign_in(&mut simulation);
    let cut_after = u16::try_from(LeavingTracker::CUT_AFTER.as_millis()).unwrap();
    run(&mut simulation, &Op::Pass { millis: cut_after - 1 });
    assert_eq!(simulation.told_sessions(), a);
    run(&mut simulation, &Op::Pass { millis: 1 });
    let c = simulation.told_sessions();
    assert_eq!(c.iter().map(|session| session.number()).collect::<Vec<_>>(), [3]);
    simulation.check_recovery();
}

/// The worst case for one grant.
#[test]
fn unanswered_grant_is_released_after_the_timeout() {
    let ops = [
        Op::Connect,
        Op::Send { client: 0, message: Message::Authenticate { user: 0 } },
        Op::Store { which: 0, fault: StoreFault::ApplyUnanswered },
        Op::Pass { millis: u16::try_from(CoreSimulation::STORE_TIMEOUT.as_millis()).unwrap() },
        Op::Pass { millis: 100 },
        Op::Store { which: 0, fault: StoreFault::Apply },
    ];
    let simulation = CoreSimulation::run(AdmissionPolicy::new(SlotLimit::new(1).unwrap()), &ops);
    assert!(simulation.checks > ops.len() as u64);
}

/// Signs in as one of many, with an object. See [`Message::AuthenticateWithObject`].
fn sign_in_with(simulation: &mut CoreSimulation, evict: u8) {
    run(simulation, &Op::Connect);
    let client = u8::try_from(simulation.open_connections() - 1).unwrap();
    let message = Message::AuthenticateWithObject { user: 0, device: None, evict, resume: None };
    run(simulation, &Op::Send { client, message });
    apply_all(simulation);
}

fn apply_all(simulation: &mut CoreSimulation) {
    for _ in 0..4 {
        run(simulation, &Op::Store { which: 0, fault: StoreFault::Apply });
    }
}

/// See [`policy`].
const LINGERS: u8 = 16;

/// The slots of two lost sessions lapse shortly after each other.
#[test]
fn watching_client_hears_of_changes_once_a_second() {
    let mut simulation = CoreSimulation::new(policy(SlotLimit::new(3).unwrap(), LINGERS));
    for _ in 0..3 {
        sign_in_with(&mut simulation, 0);
    }
    run(&mut simulation, &Op::Send { client: 0, message: Message::Watch { is_on: true } });
    for _ in 0..2 {
        run(&mut simulation, &Op::Leave { client: 1 });
        apply_all(&mut simulation);
        run(&mut simulation, &Op::Pass { millis: 300 });
        apply_all(&mut simulation);
    }
    for _ in 0..100 {
        run(&mut simulation, &Op::Alive { client: 0 });
        run(&mut simulation, &Op::Pass { millis: 300 });
        apply_all(&mut simulation);
    }
    assert_eq!(simulation.told_sessions().len(), 1);
    assert!(simulation.changes >= 3, "it hears of the changes");
    simulation.check_recovery();
}

/// Two wait, and get the slot one after the other, whether or not they are told.
#[test]
fn waiting_clients_get_the_slot_in_order() {
    for is_lost in [false, true] {
        let mut simulation = CoreSimulation::new(policy(SlotLimit::new(1).unwrap(), 0));
        for evict in [0, WAITS, WAITS] {
            sign_in_with(&mut simulation, evict);
        }
        let numbers = |simulation: &CoreSimulation| {
            simulation.told_sessions().iter().map(|session| session.number()).collect::<Vec<_>>()
        };
        assert_eq!((numbers(&simulation), simulation.in_line()), (vec![1], 2));
        for next in [2, 3] {
            run(&mut simulation, &Op::Send { client: 0, message: Message::Bye });
            apply_all(&mut simulation);
            while simulation.hints_under_way() > 0 {
                run(&mut simulation, &Op::Hint { which: 0, is_lost });
            }
            if is_lost {
                assert_eq!(numbers(&simulation), [0; 0]);
                run(&mut simulation, &Op::Pass { millis: 10_000 });
            }
            apply_all(&mut simulation);
            apply_all(&mut simulation);
            assert_eq!(numbers(&simulation), [next], "{is_lost}");
        }
        simulation.check_recovery();
    }
}

/// The number of [`Message::AuthenticateWithObject`] that says to wait for 34 seconds.
const WAITS: u8 = 64 + 31;

/// The committed seeds of the fuzz target.
#[test]
fn fuzz_seeds_pass() {
    for seed in fuzz_seeds("protocol") {
        let scenario: Scenario = Unstructured::new(&seed).arbitrary().unwrap();
        CoreSimulation::run(scenario.policy, &scenario.ops);
    }
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..32_u8;
    prop_oneof![
        10 => Just(Op::Connect),
        20 => (client.clone(), message()).prop_map(|(client, message)| Op::Send { client, message }),
        1 => (client.clone(), any::<u8>()).prop_map(|(client, how)| Op::Violate { client, how }),
        1 => client.clone().prop_map(|client| Op::Alive { client }),
        6 => client.clone().prop_map(|client| Op::Leave { client }),
        30 => (client, fault()).prop_map(|(which, fault)| Op::Store { which, fault }),
        4 => any::<u16>().prop_map(|millis| Op::Pass { millis }),
        4 => (0..500_u16).prop_map(|millis| Op::Pass { millis }),
        1 => Just(Op::Drain),
        1 => Just(Op::Restart),
        1 => any::<i8>().prop_map(|seconds| Op::SetWallClock { seconds }),
        2 => any::<u8>().prop_map(|slots| Op::SetLimit { slots }),
        1 => any::<u8>().prop_map(|user| Op::Enforce { user }),
        4 => (0..32_u8).prop_map(|client| Op::Stall { client }),
        4 => any::<(u8, bool)>().prop_map(|(which, is_lost)| Op::Hint { which, is_lost }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        6 => any::<u8>().prop_map(|user| Message::Authenticate { user }),
        4 => (any::<u8>(), prop::option::of(any::<u8>()), 0..20_u8)
            .prop_map(|(user, limit, seconds)| Message::AuthenticateWithToken { user, limit, seconds }),
        8 => (any::<u8>(), prop::option::of(any::<u8>()), any::<u8>(), prop::option::of(any::<u8>()))
            .prop_map(|(user, device, evict, resume)| Message::AuthenticateWithObject { user, device, evict, resume }),
        1 => Just(Message::List),
        1 => any::<u8>().prop_map(|which| Message::End { which }),
        2 => Just(Message::Check),
        3 => Just(Message::Bye),
        1 => any::<String>().prop_map(Message::Raw),
        2 => any::<bool>().prop_map(|is_on| Message::Watch { is_on }),
    ]
}

fn fault() -> impl Strategy<Value = StoreFault> {
    prop_oneof![
        12 => Just(StoreFault::Apply),
        2 => Just(StoreFault::ApplyUnanswered),
        2 => Just(StoreFault::ApplyUnknown),
        2 => Just(StoreFault::Reject),
        2 => Just(StoreFault::DropUnknown),
        1 => Just(StoreFault::DropUnanswered),
        2 => Just(StoreFault::Postpone),
        2 => Just(StoreFault::Begin),
    ]
}
