//! The membership of a node against a naive model, which keeps everything that the node has seen and searches it from the
//! beginning each time.

mod model;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use session_core::cluster::{
    BeatAnswer, ClusterTiming, FenceReason, Generation, GenerationId, HistoryId, Membership, MembershipActions,
    MembershipEvent, NodeEntry, OverridesVersion, OwnId, Request,
};
use session_core::ledger::Liveness;
use session_core::{NodeId, Timestamp, UserId};

use model::{Look, Model, Sent};

const NANOSECOND: Duration = Duration::from_nanos(1);

#[test]
fn membership_keeps_its_promises() {
    let config = ProptestConfig { cases: 1500, ..ProptestConfig::with_source_file(file!()) };
    let met = RefCell::new(BTreeMap::new());
    let result = TestRunner::new(config).run(&(any::<bool>(), vec(step(), 0..120)), |(knows_former, steps)| {
        let mut pair = MembershipAndModel::new(knows_former);
        steps.iter().for_each(|step| pair.step(step));
        for what in pair.met {
            *met.borrow_mut().entry(what).or_insert(0) += 1;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // Otherwise the test has shown nothing.
    for what in [
        "fence",
        "buried",
        "bury",
        "bury former",
        "open",
        "leave",
        "put off",
        "not put off",
        "admits",
        "stray answer",
        "absent and dead",
        "absent and alive",
        "joins at the fence",
        "declared dead",
        "declared dead again",
        "sweeps",
        "outdated",
    ] {
        assert!(met.borrow().get(what).is_some_and(|cases| *cases >= 20), "too rare: {what}, in {:?}", met.borrow());
    }
}

/// What a step does, after some time.
#[derive(Debug, Clone)]
struct Step {
    wait: Wait,
    event: Event,
}

#[derive(Debug, Clone)]
enum Wait {
    Millis(u64),
    /// Until the deadline of the node.
    Deadline,
    /// Until a nanosecond before the fence.
    BeforeFence,
}

#[derive(Debug, Clone)]
enum Event {
    Tick,
    Answer(Answer),
    /// The beat gets no answer. If there is none, the node joins if it has no id.
    Lost,
    Reasserted,
    Joins,
    /// One of the node's ids leaves.
    Leaves(prop::sample::Index),
    /// An operator declares one of all nodes dead.
    Bury(prop::sample::Index),
}

/// What the store says to a beat, as a change of what it said before.
#[derive(Debug, Clone)]
struct Answer {
    is_confirmed: bool,
    generation: ThisGeneration,
    is_open: bool,
    /// What becomes of the nodes, in turn.
    changes: Vec<Change>,
    has_inbox: bool,
}

#[derive(Debug, Clone)]
enum ThisGeneration {
    Same,
    /// The one that this beat has proposed.
    Proposed,
    /// One that another node has proposed: one of a few, so that one may come again.
    Other(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Same,
    Beats,
    Dead,
    Left,
    Gone,
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        6 => Just(Wait::Millis(0)),
        3 => (1..3000_u64).prop_map(Wait::Millis),
        4 => (1..10_u64).prop_map(|seconds| Wait::Millis(seconds * 1000)),
        1 => (15_000..30_000_u64).prop_map(Wait::Millis),
        6 => Just(Wait::Deadline),
        1 => Just(Wait::BeforeFence),
    ];
    let generation = prop_oneof![
        12 => Just(ThisGeneration::Same),
        1 => Just(ThisGeneration::Proposed),
        1 => (0..3_u64).prop_map(ThisGeneration::Other),
    ];
    let change = prop_oneof![
        12 => Just(Change::Same),
        2 => Just(Change::Beats),
        1 => Just(Change::Dead),
        1 => Just(Change::Left),
        1 => Just(Change::Gone),
    ];
    let answer =
        (prop::bool::weighted(0.95), generation, prop::bool::weighted(0.15), vec(change, 8), prop::bool::weighted(0.1))
            .prop_map(|(is_confirmed, generation, is_open, changes, has_inbox)| {
                Event::Answer(Answer { is_confirmed, generation, is_open, changes, has_inbox })
            });
    let event = prop_oneof![
        4 => Just(Event::Tick),
        12 => answer,
        2 => Just(Event::Lost),
        4 => Just(Event::Reasserted),
        1 => Just(Event::Joins),
        1 => any::<prop::sample::Index>().prop_map(Event::Leaves),
        1 => any::<prop::sample::Index>().prop_map(Event::Bury),
    ];
    (wait, event).prop_map(|(wait, event)| Step { wait, event })
}

struct MembershipAndModel {
    membership: Membership,
    model: Model,
    now: Timestamp,
    joins: u64,
    /// What has happened.
    met: BTreeSet<&'static str>,
}

/// Other nodes. No id of the node itself is among them.
const OTHERS: [NodeId; 3] = [NodeId::new(10), NodeId::new(1000), NodeId::new(2000)];

/// The ids of the node, in no order.
const fn own_id(number: u64) -> NodeId {
    NodeId::new(617 * number % 1009 * 3)
}

impl MembershipAndModel {
    fn new(knows_former: bool) -> Self {
        let now = Timestamp::from_epoch(Duration::from_secs(1_700_000_000));
        let timing = ClusterTiming::default().with_memory(Duration::from_secs(30));
        let former = knows_former.then_some(own_id(1));
        let model = Model {
            timing,
            ids: vec![(own_id(2), false)],
            fenced: former.into_iter().map(|node| (node, 0)).collect(),
            left: BTreeSet::new(),
            declared_dead: BTreeSet::new(),
            looks: Vec::new(),
            confirmed: Vec::new(),
            is_reasserted: false,
            under_way: None,
            beats: 0,
            next_beat: now,
        };
        let membership = Membership::new(own_id(2), former, timing, now);
        Self { membership, model, now, joins: 2, met: BTreeSet::new() }
    }

    fn step(&mut self, step: &Step) {
        match step.wait {
            Wait::Millis(millis) => self.now = self.now + Duration::from_millis(millis),
            Wait::Deadline => self.now = self.now.max(self.membership.deadline().unwrap_or_default()),
            Wait::BeforeFence => {
                let before =
                    self.model.confirmed.iter().max().map(|sent| *sent + (self.model.timing.fence() - NANOSECOND));
                self.now = self.now.max(before.unwrap_or_default());
            }
        }
        let event = self.event(&step.event);
        self.check_state();
        // A fence comes before everything else.
        let is_late = self.model.fence_at().is_some_and(|fence| self.now >= fence);
        let mut expected = MembershipActions::default();
        let joins = if let MembershipEvent::Joins(node) = &event { Some(*node) } else { None };
        let actions = self.membership.handle(event.clone(), self.now);
        if is_late {
            self.met.insert("fence");
            expected.fenced = Some(FenceReason::NotConfirmed);
            self.model.fence();
            self.met.extend(joins.map(|_| "joins at the fence"));
        }
        if let Some(node) = joins {
            self.model.ids.push((node, false));
            self.model.next_beat = self.now;
        } else if !is_late {
            self.expect(event, &mut expected);
        }
        let declared: Vec<_> = expected.requests.iter().filter_map(burial).collect();
        self.check_requests(&actions.requests, expected.overrides.is_some(), declared);
        for request in &expected.requests {
            assert!(actions.requests.contains(request), "{request:?} is missing");
        }
        let MembershipActions { requests, .. } = actions.clone();
        assert_eq!(actions, MembershipActions { requests, ..expected });
        self.check_state();
    }

    fn event(&mut self, event: &Event) -> MembershipEvent {
        match event {
            Event::Tick => MembershipEvent::Tick,
            Event::Answer(answer) => MembershipEvent::BeatAnswered(self.answer(answer)),
            Event::Lost if self.model.under_way.is_some() => MembershipEvent::BeatLost,
            Event::Lost if !self.model.ids.is_empty() => MembershipEvent::Tick,
            Event::Lost | Event::Joins => {
                self.joins += 1;
                MembershipEvent::Joins(own_id(self.joins))
            }
            Event::Reasserted => MembershipEvent::Reasserted,
            Event::Leaves(_) if self.model.ids.is_empty() => MembershipEvent::Tick,
            Event::Leaves(index) => MembershipEvent::Leaves(index.get(&self.model.ids).0),
            Event::Bury(index) => MembershipEvent::Bury(*index.get(&self.nodes().collect::<Vec<_>>())),
        }
    }

    /// All nodes that the store may know.
    fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        OTHERS.into_iter().chain((1..=self.joins).map(own_id))
    }

    fn answer(&self, answer: &Answer) -> BeatAnswer {
        let before = self.model.looks.last();
        let other = |beat| GenerationId { node: OTHERS[0], beat };
        let id = match answer.generation {
            ThisGeneration::Same => before.map_or(other(0), |look| look.generation.id),
            ThisGeneration::Proposed => GenerationId { node: own_id(self.joins), beat: self.model.beats },
            ThisGeneration::Other(number) => other(number),
        };
        let entry = |(node, change): (NodeId, &Change)| {
            let last = self.model.entry(node);
            let entry = match (change, last) {
                (Change::Same, Some(entry)) => entry,
                (Change::Beats, Some(NodeEntry::Beats(beat))) => NodeEntry::Beats(beat + 1),
                (Change::Beats, _) => NodeEntry::Beats(1),
                (Change::Dead, _) => NodeEntry::Dead(self.now),
                (Change::Left, _) => NodeEntry::Left,
                (Change::Gone, _) | (Change::Same, None) => return None,
            };
            Some((node, entry))
        };
        let inbox = (UserId::parse("ada").expect("it is valid"), own_id(2).session(1));
        BeatAnswer {
            is_confirmed: answer.is_confirmed,
            generation: Generation { id, history: HistoryId([0; 20]), number: id.beat + 1, is_open: answer.is_open },
            overrides: OverridesVersion { number: self.model.beats, ..OverridesVersion::default() },
            nodes: self.nodes().zip(answer.changes.iter().cycle()).filter_map(entry).collect(),
            inbox: answer.has_inbox.then_some(inbox).into_iter().collect(),
        }
    }

    /// What an event must do, beside beats and what follows from a look.
    fn expect(&mut self, event: MembershipEvent, expected: &mut MembershipActions) {
        let model = &mut self.model;
        match event {
            MembershipEvent::Tick | MembershipEvent::Joins(_) => {}
            MembershipEvent::BeatLost => model.under_way = None,
            MembershipEvent::Reasserted => {
                (model.is_reasserted, model.next_beat) = (!model.looks.is_empty(), self.now);
            }
            MembershipEvent::Leaves(node) => {
                self.met.insert("leave");
                model.ids.retain(|(own, _)| *own != node);
                model.left.insert(node);
                // Without a look the store does not know it.
                let leave = model.generation().map(|generation| Request::Leave { node, generation });
                expected.requests = leave.into_iter().collect();
            }
            MembershipEvent::Bury(node) => {
                let burial = model.declare_dead(node);
                if let Some(beat) = burial {
                    self.met.insert("declared dead");
                    model.next_beat = self.now;
                    expected.requests = vec![Request::Bury { node, beat: Some(beat), at: self.now }];
                }
            }
            MembershipEvent::BeatAnswered(answer) => {
                let Some(sent) = model.under_way.take() else {
                    self.met.insert("stray answer");
                    return;
                };
                if !answer.is_confirmed {
                    self.met.insert("buried");
                    expected.fenced = Some(FenceReason::Buried);
                    model.fence();
                    return;
                }
                let is_new = model.looks.last().is_none_or(|look| look.generation.id != answer.generation.id);
                let was_open = !is_new && model.is_open();
                expected.overrides = Some(answer.overrides);
                expected.is_new_generation = is_new;
                expected.has_opened = answer.generation.is_open && !was_open;
                expected.inbox = answer.inbox;
                model.is_reasserted &= !is_new;
                // The first one begins, and the others count only if all sessions are in the store.
                if model.confirmed.is_empty() || model.is_reasserted {
                    self.met.insert("put off");
                    model.confirmed.push(sent.at);
                } else {
                    self.met.insert("not put off");
                }
                for (own, has_joined) in &mut model.ids {
                    *has_joined |= sent.ids.contains(own);
                }
                let nodes = answer.nodes.into_iter().collect();
                model.looks.push(Look { at: self.now, number: sent.number, generation: answer.generation, nodes });
                model.forget_declared();
                self.met.extend((!model.declared_dead.is_empty()).then_some("declared dead again"));
            }
        }
    }

    /// Checks what the node asks for, and that it asks for what it has to. `has_looked`: whether it has just seen the nodes.
    /// `declared`: whom an operator has it bury.
    fn check_requests(&mut self, requests: &[Request], has_looked: bool, declared: Vec<(NodeId, Option<u64>)>) {
        let (mut burials, mut opens) = (Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::Beat { ids, number, seen, seen_number, proposed } => {
                    let greatest = self.model.looks.iter().map(|look| look.generation.number).max();
                    assert_eq!(*seen_number, greatest.unwrap_or_default());
                    self.check_beat(ids, *number, *seen, *proposed);
                }
                Request::Bury { node, beat, at } => {
                    assert!(!self.model.is_in_force(*node), "it buries itself");
                    assert_eq!(*at, self.now);
                    self.met.insert(if beat.is_some() { "bury" } else { "bury former" });
                    burials.push((*node, *beat));
                }
                Request::Open(generation) => {
                    self.met.insert("open");
                    opens.push(*generation);
                }
                Request::Leave { node, generation } => {
                    assert!(self.model.left.contains(node), "{node} has not left");
                    assert_eq!(Some(*generation), self.model.generation());
                }
                Request::Forget { .. }
                | Request::RaiseFloor { .. }
                | Request::Read(_)
                | Request::Write(_)
                | Request::Scan { .. }
                | Request::ReadOverrides
                | Request::WriteOverrides(_)
                | Request::RestoreOverrides { .. } => panic!("no request of a membership: {request:?}"),
            }
        }
        burials.sort_unstable();
        let model = &self.model;
        assert_eq!(burials, if has_looked { model.burials(self.now) } else { declared });
        assert_eq!(opens, Vec::from_iter(model.must_open(self.now).filter(|_| has_looked)));
        let is_due = model.under_way.is_none() && !model.ids.is_empty() && self.now >= model.next_beat;
        assert!(!is_due, "a beat is missing");
    }

    fn check_beat(&mut self, ids: &[OwnId], number: u64, seen: Option<GenerationId>, proposed: GenerationId) {
        let model = &mut self.model;
        assert!(model.under_way.is_none(), "two beats are under way");
        assert!(self.now >= model.next_beat, "a beat comes too early");
        assert_eq!(number, model.beats + 1);
        let in_force: Vec<_> = model.ids.iter().map(|&(node, has_joined)| OwnId { node, has_joined }).collect();
        assert_eq!(ids, in_force);
        let is_gone = |node| model.left.contains(node) || model.fenced.iter().any(|(fenced, _)| fenced == node);
        assert!(!ids.iter().any(|own| is_gone(&own.node)), "a beat of an id that is fenced or has left");
        assert_eq!(seen, model.looks.last().map(|look| look.generation.id));
        // No two proposals are the same: the ids are the node's own, and the numbers increase.
        assert!(model.is_in_force(proposed.node) && proposed.beat == number, "{proposed}");
        model.beats = number;
        model.under_way = Some(Sent { at: self.now, number, ids: ids.iter().map(|own| own.node).collect() });
        model.next_beat = self.now + model.timing.beat();
    }

    /// Checks what the node says of itself and of the others.
    fn check_state(&mut self) {
        let (membership, model, now) = (&self.membership, &self.model, self.now);
        let fence = model
            .confirmed
            .iter()
            .max()
            .map(|sent| [*sent + (model.timing.fence() - NANOSECOND), *sent + model.timing.fence()]);
        for at in fence.into_iter().flatten().chain([now, now + model.timing.beat()]) {
            assert_eq!(membership.may_serve(at), model.may_serve(at), "at {at:?}");
        }
        let has_joined = !model.confirmed.is_empty();
        let may_admit = has_joined && model.is_reasserted && model.is_open();
        assert_eq!(membership.may_admit(), may_admit, "may admit");
        assert_eq!(membership.has_joined(), has_joined);
        assert_eq!(membership.is_reasserted(), model.is_reasserted);
        assert_eq!(membership.generation().map(|of| of.id), model.looks.last().map(|look| look.generation.id));
        assert_eq!(membership.in_generation_since(), model.looks_in_force().last().map(|look| look.at));
        assert_eq!(membership.deadline(), model.deadline());
        assert_eq!(membership.beats(), model.beats);
        assert_eq!(membership.looked(), model.looks.last().map_or(0, |look| look.number));
        assert!(membership.ids().eq(model.ids.iter().map(|(node, _)| *node)), "ids");
        let joined = model.ids.iter().filter(|(_, has_joined)| *has_joined).map(|(node, _)| *node);
        assert_eq!(membership.node(), joined.clone().next_back());
        let alive: Vec<_> =
            self.nodes().filter(|node| matches!(model.entry(*node), Some(NodeEntry::Beats(_)))).collect();
        let sweeps = alive.iter().min().is_some_and(|node| model.is_in_force(*node));
        assert_eq!(membership.is_sweeper(), sweeps);
        let mut dead = BTreeSet::new();
        for node in self.nodes() {
            assert_eq!(membership.is_own(node), joined.clone().any(|own| own == node));
            assert_eq!(membership.is_seen_alive(node), alive.contains(&node));
            for read_after in model.beats.saturating_sub(3)..=model.beats {
                let liveness = model.liveness(node, read_after, now);
                assert_eq!(membership.liveness(node, read_after, now), liveness, "{node} after {read_after}");
                if model.entry(node).is_none() && !model.is_in_force(node) {
                    let is_alive = liveness == Liveness::Alive;
                    self.met.insert(if is_alive { "absent and alive" } else { "absent and dead" });
                }
            }
            if matches!(model.entry(node), Some(NodeEntry::Dead(_))) {
                dead.insert(node);
            }
        }
        assert_eq!(membership.dead().collect::<BTreeSet<_>>(), dead);
        let outdated: Vec<_> = self
            .nodes()
            .filter(|node| model.is_outdated(*node, now))
            .filter_map(|node| model.entry(node).map(|entry| (node, entry)))
            .collect();
        self.met.extend((!outdated.is_empty()).then_some("outdated"));
        assert_eq!(membership.outdated(now).collect::<BTreeMap<_, _>>(), outdated.into_iter().collect());
        let others: BTreeSet<_> = alive.iter().copied().filter(|node| !model.is_in_force(*node)).collect();
        assert_eq!(membership.others().collect::<BTreeSet<_>>(), others);
        self.met.extend(may_admit.then_some("admits"));
        self.met.extend(sweeps.then_some("sweeps"));
    }
}

fn burial(request: &Request) -> Option<(NodeId, Option<u64>)> {
    if let Request::Bury { node, beat, .. } = request { Some((*node, *beat)) } else { None }
}

/// A membership that has just seen these nodes, at this time.
fn looked(membership: &mut Membership, nodes: &[(NodeId, NodeEntry)], now: Timestamp) -> MembershipActions {
    let generation = Generation {
        id: GenerationId { node: OTHERS[0], beat: 1 },
        history: HistoryId([0; 20]),
        number: 1,
        is_open: true,
    };
    let answer = BeatAnswer {
        is_confirmed: true,
        generation,
        overrides: OverridesVersion::default(),
        nodes: nodes.to_vec(),
        inbox: Vec::new(),
    };
    membership.handle(MembershipEvent::BeatAnswered(answer), now)
}

#[test]
fn node_that_is_declared_dead_is_buried_at_once() {
    let now = Timestamp::from_epoch(Duration::from_secs(1_700_000_000));
    let own = own_id(2);
    let mut membership = Membership::new(own, None, ClusterTiming::default(), now);
    let _beat = membership.handle(MembershipEvent::Tick, now);
    let nodes = |beat| [(own, NodeEntry::Beats(1)), (OTHERS[0], NodeEntry::Beats(beat)), (OTHERS[1], NodeEntry::Left)];
    assert_eq!(looked(&mut membership, &nodes(7), now).requests, []);

    for node in [own, OTHERS[1], OTHERS[2]] {
        let actions = membership.handle(MembershipEvent::Bury(node), now);
        assert_eq!(actions, MembershipActions::default(), "this node, one that has left, and one that nobody knows");
    }
    let bury = |beat| Request::Bury { node: OTHERS[0], beat: Some(beat), at: now };
    let actions = membership.handle(MembershipEvent::Bury(OTHERS[0]), now);
    assert_eq!(actions.requests.first(), Some(&bury(7)));
    assert!(matches!(actions.requests.get(1), Some(Request::Beat { number: 2, .. })), "the next look comes at once");
    // It was alive, and has beaten in between: the store has refused that.
    assert_eq!(looked(&mut membership, &nodes(8), now).requests, [bury(8)]);
    let _beat = membership.handle(MembershipEvent::Tick, now + ClusterTiming::default().beat());
    let dead = [(own, NodeEntry::Beats(3)), (OTHERS[0], NodeEntry::Dead(now))];
    assert_eq!(looked(&mut membership, &dead, now).requests, []);
    // Should the id beat again, as in a store with older data, it is not declared dead any more.
    let _beat = membership.handle(MembershipEvent::Tick, now + ClusterTiming::default().beat() * 2);
    assert_eq!(looked(&mut membership, &nodes(9), now).requests, []);
}
