//! Random histories over the hostile world: the invariants hold after every step, and everything comes back.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use arbitrary::Unstructured;
use proptest::collection::vec;
use proptest::prelude::*;
use session_core::{Limit, Terms};
use tests::core_simulation::{Fate, History, Message, Op, World};
use tests::policies::terms;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_the_limit_or_leaks_a_slot(limit in 0..=4_u32, bits: u8, ops in vec(op(), 0..160)) {
        World::run(terms(Limit::new(limit).unwrap(), bits), &ops);
    }

    /// With few connections that authenticate at once, most histories run into the limit.
    #[test]
    fn no_race_of_newcomers_breaks_the_limit(limit in 1..=3_u32, bits: u8, fates in vec((0..8_u8, fate()), 0..80)) {
        let mut ops = Vec::new();
        for who in 0..8 {
            ops.push(Op::Connect);
            ops.push(Op::Say { who, what: Message::Authenticate { user: 0 } });
        }
        for (which, fate) in fates {
            ops.push(Op::Store { which, fate });
            ops.push(Op::Say { who: which, what: Message::Bye });
            ops.push(Op::Connect);
            ops.push(Op::Say { who: 7, what: Message::Authenticate { user: 0 } });
        }
        World::run(terms(Limit::new(limit).unwrap(), bits), &ops);
    }
}

/// The worst that can happen to one grant, written out.
#[test]
fn a_grant_whose_answer_was_lost_is_released_when_its_time_is_over() {
    let ops = [
        Op::Connect,
        Op::Say { who: 0, what: Message::Authenticate { user: 0 } },
        Op::Store { which: 0, fate: Fate::ApplyUnanswered },
        Op::Pass { millis: u16::try_from(World::STORE_TIMEOUT.as_millis()).unwrap() },
        Op::Pass { millis: 100 },
        Op::Store { which: 0, fate: Fate::Apply },
    ];
    let world = World::run(Terms::new(Limit::new(1).unwrap()), &ops);
    assert!(world.checks > ops.len() as u64);
}

/// The fuzzer's seeds, without the fuzzer.
#[test]
fn the_seeds_of_the_fuzzer_hold() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/protocol");
    let mut replayed = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let bytes = std::fs::read(seed.unwrap().path()).unwrap();
        let history: History = Unstructured::new(&bytes).arbitrary().unwrap();
        World::run(history.terms, &history.ops);
        replayed += 1;
    }
    assert!(replayed > 0, "no seeds in {seeds}");
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..32_u8;
    prop_oneof![
        10 => Just(Op::Connect),
        20 => (who.clone(), message()).prop_map(|(who, what)| Op::Say { who, what }),
        1 => (who.clone(), any::<u8>()).prop_map(|(who, how)| Op::Violate { who, how }),
        1 => who.clone().prop_map(|who| Op::Alive { who }),
        6 => who.clone().prop_map(|who| Op::Leave { who }),
        30 => (who, fate()).prop_map(|(which, fate)| Op::Store { which, fate }),
        4 => any::<u16>().prop_map(|millis| Op::Pass { millis }),
        4 => (0..500_u16).prop_map(|millis| Op::Pass { millis }),
        1 => Just(Op::Drain),
        1 => Just(Op::Restart),
        1 => any::<i8>().prop_map(|seconds| Op::SetWallClock { seconds }),
        2 => any::<u8>().prop_map(|slots| Op::SetLimit { slots }),
        1 => any::<u8>().prop_map(|user| Op::Enforce { user }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        6 => any::<u8>().prop_map(|user| Message::Authenticate { user }),
        4 => (any::<u8>(), prop::option::of(any::<u8>()), 0..20_u8)
            .prop_map(|(user, limit, seconds)| Message::Show { user, limit, seconds }),
        8 => (any::<u8>(), prop::option::of(any::<u8>()), any::<u8>(), prop::option::of(any::<u8>()))
            .prop_map(|(user, device, evict, resume)| Message::Ask { user, device, evict, resume }),
        1 => Just(Message::List),
        1 => any::<u8>().prop_map(|which| Message::End { which }),
        2 => Just(Message::Check),
        3 => Just(Message::Bye),
        1 => any::<String>().prop_map(Message::Raw),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Apply),
        2 => Just(Fate::ApplyUnanswered),
        2 => Just(Fate::ApplyUnknown),
        2 => Just(Fate::Reject),
        2 => Just(Fate::DropUnknown),
        1 => Just(Fate::DropUnanswered),
        2 => Just(Fate::Postpone),
    ]
}
