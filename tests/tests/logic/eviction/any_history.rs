//! Any history of one user, against a naive model.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{AcquireOptions, EndTarget, KnownToken, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, CountBy, EndReason, Evict, Outcome, SessionRecord, SessionStatus, StoreError, WhenFull,
};
use session_core::ledger::{DenyReason, Resumption, SlotUsage};
use session_core::{NodeId, SessionId, Timestamp};

use super::one_user::*;

/// One session in a naive model. The rule decides which sessions end; the model follows.
#[derive(Debug, Clone)]
struct ModelSession {
    /// The session that took its slot first.
    slot: SessionId,
    device: Option<u8>,
    key: Option<u8>,
    linger: Duration,
    /// The end of its grace period, if it lingers.
    until: Option<Timestamp>,
}

/// One step of a user's history.
#[derive(Debug, Clone)]
enum Step {
    Acquire {
        node: u64,
        number: u64,
        device: Option<u8>,
        evict: Option<Vec<u64>>,
        resume: Option<u8>,
        is_plain: bool,
        waits: bool,
    },
    Release {
        node: u64,
        number: u64,
    },
    Linger {
        node: u64,
        number: u64,
        /// The token that the client showed, if it is not certain that it has that of the slot.
        shown: Option<u8>,
    },
    End {
        asker: u64,
        which: u64,
    },
    Excess,
    Policy {
        limit: u32,
        evict_oldest: bool,
        client_choice: bool,
        lingering_first: bool,
        count_devices: bool,
        linger: bool,
        /// The seconds for which a slot that was just lost is kept.
        grace: u64,
        /// Whether the server that decides from now on has just started.
        has_started: bool,
    },
    Dies {
        node: u64,
    },
    Pass {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (node, number) = (0..3_u64, 0..6_u64);
    let device = prop::option::of(0..3_u8);
    let evict = prop::option::of(prop::collection::vec(0..6_u64, 0..4));
    let resume = prop::option::weighted(0.3, 0..40_u8);
    prop_oneof![
        12 => (node.clone(), number.clone(), device, evict, resume, any::<[bool; 2]>()).prop_map(
            |(node, number, device, evict, resume, [is_plain, waits])| Step::Acquire { node, number, device, evict, resume, is_plain, waits }
        ),
        4 => (node.clone(), number.clone()).prop_map(|(node, number)| Step::Release { node, number }),
        5 => (node.clone(), number.clone(), prop::option::weighted(0.3, 0..40_u8))
            .prop_map(|(node, number, shown)| Step::Linger { node, number, shown }),
        2 => (number.clone(), number).prop_map(|(asker, which)| Step::End { asker, which }),
        1 => Just(Step::Excess),
        3 => (0..5_u32, any::<[bool; 6]>(), 0..15_u64).prop_map(|(limit, bools, grace)| {
            let [evict_oldest, client_choice, lingering_first, count_devices, linger, has_started] = bools;
            let grace = grace.saturating_sub(3);
            Step::Policy { limit, evict_oldest, client_choice, lingering_first, count_devices, linger, grace, has_started }
        }),
        1 => node.prop_map(|node| Step::Dies { node }),
        2 => (0..15_u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn slots_of(model: &BTreeMap<SessionId, ModelSession>, counting: CountBy) -> usize {
    match counting {
        CountBy::Sessions => model.len(),
        CountBy::Devices => {
            let count_devices: BTreeSet<_> = model.values().filter_map(|model| model.device).collect();
            count_devices.len() + model.values().filter(|model| model.device.is_none()).count()
        }
    }
}

fn status_of(entry: &SessionRecord) -> (SessionId, Option<Timestamp>) {
    let until = match entry.status {
        SessionStatus::Live => None,
        SessionStatus::Lingering { until } => Some(until),
    };
    (entry.session, until)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_shrink_iters: 50_000, ..ProptestConfig::default() })]

    /// The model does not predict which sessions the rule ends. It checks what must hold whichever they are.
    #[test]
    fn any_history_agrees_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut harness = UserHarness::default();
        let mut model: BTreeMap<SessionId, ModelSession> = BTreeMap::new();
        let mut policy = AdmissionPolicy { max_waiting: 3, ..policy(2) };
        let mut tokens = 0_u8;
        let mut line: Vec<SessionId> = Vec::new();
        for step in steps {
            let mut now = harness.next_second();
            let command = match step.clone() {
                Step::Acquire { node, number, device, evict, resume, is_plain, waits } => {
                    tokens = tokens.wrapping_add(1);
                    let options = AcquireOptions {
                        device: device.and_then(|device| name(&device.to_string())),
                        label: None,
                        // No client shows a key before it exists.
                        resume: resume.filter(|&status_of| status_of != tokens).map(key),
                        new_resume_key: Some(key(tokens)),
                        evict: evict.map(|numbers| match &numbers[..] {
                            [] => Evict::Oldest,
                            [5, ..] => Evict::Nobody,
                            numbers => Evict::Sessions(numbers.iter().map(|&number| NodeId::new(number % 3).session(number)).collect()),
                        }),
                        must_resume: false,
                        waits,
                    };
                    let options = (!is_plain).then(|| Box::new(options));
                    let session = NodeId::new(node).session(number);
                    Some(StoreCommand::Acquire { user: user(), session, limit: None, at: now, options })
                }
                Step::Release { node, number } => {
                    Some(StoreCommand::Release { user: user(), session: NodeId::new(node).session(number) })
                }
                Step::Linger { node, number, shown } => Some(StoreCommand::Linger {
                    user: user(),
                    session: NodeId::new(node).session(number),
                    at: now,
                    token: shown.map_or(KnownToken::Granted, |shown| KnownToken::Shown(Box::new(key(shown)))),
                }),
                Step::End { asker, which } => Some(StoreCommand::EndSessions {
                    user: user(),
                    session: NodeId::new(asker % 3).session(asker),
                    target: EndTarget::One(NodeId::new(which % 3).session(which)),
                    reason: EndReason::ByUser(None),
                    at: now,
                }),
                Step::Excess => Some(StoreCommand::EndSessions {
                    user: user(),
                    session: id(0),
                    target: EndTarget::Excess { limit: policy.limit, dry_run: false },
                    reason: EndReason::ByOperator,
                    at: now,
                }),
                Step::Policy { limit: slots, evict_oldest, client_choice, lingering_first, count_devices: by_device, linger, grace, has_started } => {
                    policy = AdmissionPolicy {
                        when_full: if evict_oldest { WhenFull::EvictOldest } else { WhenFull::Deny },
                        client_choice,
                        lingering_first,
                        count_by: if by_device { CountBy::Devices } else { CountBy::Sessions },
                        sessions_per_device: 2.try_into().unwrap(),
                        linger: if linger { LINGER } else { Duration::ZERO },
                        linger_grace: Duration::from_secs(grace),
                        max_waiting: 3,
                        serving_since: if has_started { now } else { policy.serving_since },
                        ..AdmissionPolicy::new(limit(slots))
                    };
                    None
                }
                Step::Dies { node } => {
                    harness.dead.entry(NodeId::new(node)).or_insert(now);
                    None
                }
                Step::Pass { seconds } => {
                    harness.second += seconds;
                    now = at(harness.second);
                    None
                }
            };
            let Some(command) = command else { continue };

            // Lapsed sessions are removed first, unless the command has no time.
            for (session, model) in &mut model {
                if let Some(&dead) = harness.dead.get(&session.node()) {
                    model.until = model.until.or(Some(dead + model.linger));
                }
            }
            let is_over = |model: &ModelSession| model.linger.is_zero() && model.until.is_some()
                || command.at().is_some() && model.until.is_some_and(|until| until <= now);
            model.retain(|_, model| !is_over(model));
            let before = model.clone();
            let order = harness.record.sessions().iter().map(|entry| entry.session);
            let before_order: Vec<_> = order.filter(|session| before.contains_key(session)).collect();
            let was_dead = harness.dead.contains_key(&command.session().node());
            let outcome = harness.apply_judged(&policy, &command);
            let then: BTreeMap<_, _> = harness.record.sessions().iter().map(status_of).collect();
            prop_assert_eq!(then.len(), harness.record.sessions().len(), "a session has two entries");
            let removed: BTreeSet<_> = before.keys().copied().filter(|session| !then.contains_key(session)).collect();
            let added: BTreeSet<_> = then.keys().copied().filter(|session| !before.contains_key(session)).collect();
            let session = command.session();

            match &command {
                StoreCommand::Release { .. } => {
                    prop_assert_eq!(&outcome, &Outcome::Released);
                    prop_assert!(removed.iter().all(|&removed| removed == session) && added.is_empty());
                    prop_assert!(!then.contains_key(&session));
                    model.remove(&session);
                }
                StoreCommand::Linger { token, .. } => {
                    prop_assert_eq!(&outcome, &Outcome::Released);
                    prop_assert!(removed.iter().all(|&removed| removed == session) && added.is_empty());
                    if let Some(old) = model.get_mut(&session) {
                        old.until = old.until.or(Some(now + old.linger));
                        let is_known = match token {
                            KnownToken::Granted => true,
                            KnownToken::Shown(shown) => old.key.map(key).as_ref() == Some(&**shown),
                        };
                        prop_assert_eq!(then.contains_key(&session), is_known && !old.linger.is_zero());
                    }
                    model.retain(|model, _| *model != session || then.contains_key(model));
                }
                StoreCommand::EndSessions { target, .. } => {
                    let Outcome::Ended { sessions, .. } = &outcome else { panic!("{outcome:?}") };
                    prop_assert_eq!(&removed, &sessions.iter().copied().collect());
                    prop_assert!(added.is_empty());
                    match target {
                        EndTarget::One(named) => {
                            // In the order of the record: a test may use an id again.
                            let named = *named;
                            let mut entries = before_order.iter().map(|session| (session, &before[session]));
                            let one = &entries.find(|(id, model)| **id == named || model.slot == named).map_or(named, |(id, _)| *id);
                            let may = before.contains_key(&session) && before.contains_key(one) && *one != session;
                            let device_of = |session: &SessionId| before[session].device.filter(|_| policy.count_by == CountBy::Devices);
                            let is_alone = |one: &SessionId| device_of(one).is_none() || device_of(one) == device_of(&session);
                            let expected = before.keys().filter(|other| {
                                may && (*other == one || !is_alone(one) && device_of(other) == device_of(one))
                            });
                            prop_assert_eq!(&removed, &expected.copied().collect());
                        }
                        _ => prop_assert!(slots_of(&model, policy.count_by).saturating_sub(removed.len()) <= policy.limit.slots() as usize
                            || policy.count_by == CountBy::Devices || before.contains_key(&session)),
                    }
                    model.retain(|model, _| !removed.contains(model));
                }
                StoreCommand::Acquire { options, .. } => match &outcome {
                    Outcome::Granted { slots, .. } if before.contains_key(&session) => {
                        prop_assert!(!was_dead && removed.is_empty() && added.is_empty());
                        prop_assert_eq!(*slots as usize, slots_of(&model, policy.count_by));
                        // A session that lingered is live again.
                        model.get_mut(&session).unwrap().until = None;
                    }
                    Outcome::Granted { slots, grant } => {
                        prop_assert!(!was_dead && policy.limit.slots() > 0, "admitted with a limit of 0");
                        prop_assert_eq!(&added, &[session].into(), "exactly one session is added");
                        let is_resumed = grant.as_ref().is_some_and(|grant| grant.resume == Resumption::Resumed);
                        let resumed = before.iter().find(|(_, model)| {
                            is_resumed && model.key.map(key) == options.as_ref().and_then(|options| options.resume)
                        });
                        if let Some((old, moved)) = resumed {
                            prop_assert_eq!(&removed, &[*old].into(), "a resume moves one session and ends no other");
                            let named = options.as_ref().and_then(|options| options.device.clone());
                            let named: Option<u8> = named.map(|device| device.as_str().parse().unwrap());
                            prop_assert!(named.is_none() || named == moved.device, "resumed the slot of another device");
                            model.remove(old);
                            model.insert(session, ModelSession { until: None, ..moved.clone() });
                        } else {
                            prop_assert!(!is_resumed, "resumed without a matching key");
                            let notified = options.as_ref().and_then(|options| options.device.clone());
                            let device = notified.map(|device| device.as_str().parse().unwrap());
                            let fresh = options.as_ref().map(|_| tokens);
                            let linger = if fresh.is_some() { policy.linger } else { Duration::ZERO };
                            model.retain(|model, _| !removed.contains(model));
                            let others = slots_of(&model, policy.count_by);
                            model.insert(session, ModelSession { slot: session, device, key: fresh, linger, until: None });
                            let slots = slots_of(&model, policy.count_by);
                            let had_slot = policy.count_by == CountBy::Devices && device.is_some() && before.values().any(|model| model.device == device);
                            prop_assert!(slots == others || had_slot || slots <= policy.limit.slots() as usize, "admitted beyond the limit");
                            // No session is ended without need.
                            let evict = options.as_ref().and_then(|options| options.evict.as_ref());
                            let names_sessions = matches!(evict, Some(Evict::Sessions(_)));
                            let may = policy.lingering_first && removed.iter().all(|removed| before[removed].until.is_some())
                                || policy.when_full == WhenFull::EvictOldest && !names_sessions
                                || policy.client_choice && evict.is_some();
                            prop_assert!(removed.is_empty() || may, "a session was ended without permission");
                            let is_spared = options.as_ref().is_some_and(|options| options.evict == Some(Evict::Nobody));
                            prop_assert!(removed.is_empty() || !is_spared, "a session was ended despite `evict: nobody`");
                            let is_own = |model: &&ModelSession| policy.count_by == CountBy::Devices && device.is_some() && model.device == device;
                            if before.values().any(|model| is_own(&model)) {
                                prop_assert!(removed.iter().all(|removed| is_own(&&before[removed])), "a session of another device was ended");
                                let released = model.values().filter(is_own).count();
                                prop_assert!(released <= 2 && (removed.is_empty() || released + line.len() >= 2), "more sessions were ended than necessary");
                            } else if !removed.is_empty() {
                                prop_assert!(slots <= policy.limit.slots() as usize && slots + line.len() >= policy.limit.slots() as usize, "more sessions were ended than necessary");
                            }
                        }
                        prop_assert_eq!(*slots as usize, slots_of(&model, policy.count_by));
                    }
                    Outcome::Denied(_) | Outcome::Waiting(_) => {
                        let usage = match &outcome {
                            Outcome::Waiting(usage) => Some(usage),
                            Outcome::Denied(usage) => usage.as_ref(),
                            _ => unreachable!(),
                        };
                        prop_assert!(removed.is_empty() && added.is_empty(), "all or nothing");
                        let is_device_full = usage.is_some_and(|usage| matches!(usage.denied, Some(DenyReason::DeviceFull | DenyReason::Gone)));
                        prop_assert!(is_device_full || !line.is_empty() || slots_of(&model, policy.count_by) >= policy.limit.slots() as usize);
                        let evict = options.as_ref().and_then(|options| options.evict.as_ref());
                        prop_assert!(!(policy.when_full == WhenFull::EvictOldest && policy.limit.slots() > 0)
                            || matches!(evict, Some(Evict::Nobody | Evict::Sessions(_))), "a session was denied without need");
                    }
                    outcome => prop_assert!(was_dead && *outcome == Outcome::Rejected(StoreError::Failed)),
                },
                StoreCommand::CountSlots { .. } | StoreCommand::ListSessions { .. } | StoreCommand::Renew { .. } => {
                    unreachable!("none of the steps")
                }
            }
            let expected: BTreeMap<_, _> = model.iter().map(|(&session, model)| (session, model.until)).collect();
            prop_assert_eq!(&then, &expected, "{:?}", &step);
            // The line keeps its order.
            line.retain(|waiter| !harness.dead.contains_key(&waiter.node()));
            let stays = |usage: &Option<Box<SlotUsage>>| usage.as_ref().is_some_and(|usage| usage.is_in_line());
            let leaves = command.is_release()
                || matches!(&outcome, Outcome::Granted { .. })
                || matches!(&outcome, Outcome::Denied(usage) if !stays(usage));
            if matches!(outcome, Outcome::Waiting(_)) && !line.contains(&session) {
                prop_assert!(line.len() < 3, "the line is too long");
                line.push(session);
            }
            line.retain(|&waiter| waiter != session || !leaves);
            let waiting: Vec<_> = harness.record.waiting().iter().map(|waiter| waiter.session).collect();
            prop_assert_eq!(&waiting, &line, "others wait, or in another order");
            // Exactly the live sessions that were ended by another one are notified.
            let released = if command.is_release() { Some(session) } else { None };
            let lost = removed.into_iter().filter(|&removed| before[&removed].until.is_none() && Some(removed) != released);
            let notified: BTreeSet<_> = harness.ended.iter().map(|ended| ended.session).collect();
            prop_assert_eq!(notified.len(), harness.ended.len(), "a session is notified twice");
            prop_assert_eq!(notified, lost.collect::<BTreeSet<_>>());
        }
    }
}
