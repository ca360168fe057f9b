//! How many requests and round trips each operation takes, in a cluster that does nothing else.

use session_core::ledger::{AdmissionPolicy, SlotLimit, WhenFull};
use session_core::{SessionId, UserId};

use crate::node::Told;
use crate::world::{BUCKETS, MS, ROUND_TRIP, SECOND, World};

/// The limit of each user.
const LIMIT: u32 = 3;

/// What an operation took.
struct Cost {
    requests: u64,
    /// Time until the client was told, in round trips. A part of one: a hint goes one way.
    round_trips: f64,
}

/// Prints one line for each operation.
pub(crate) fn print() {
    println!(
        "\ncluster::operations: two nodes, one bucket, requests without beats; round trips until the client is told"
    );
    println!("{:<48} {:>9} {:>12} {:>6}", "", "requests", "round trips", "goal");
    for (name, goal, measure) in OPERATIONS {
        let Cost { requests, round_trips } = measure();
        let goal = goal.map_or_else(|| "-".to_owned(), |goal| format!("{goal} {}", met(round_trips <= goal)));
        println!("{name:<48} {requests:>9} {round_trips:>12.1} {goal:>8}");
    }
    print_idle();
}

const fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

type Operation = (&'static str, Option<f64>, fn() -> Cost);

const OPERATIONS: [Operation; 11] = [
    ("sign in, no record", Some(2.0), || Scene::new(WhenFull::Deny, 0, 0).sign_in(0, Told::Admitted)),
    ("sign in, another session on this node", Some(1.0), || {
        Scene::new(WhenFull::Deny, 1, 0).sign_in(0, Told::Admitted)
    }),
    ("sign in, record of another node", Some(2.0), || Scene::new(WhenFull::Deny, 0, 1).sign_in(0, Told::Admitted)),
    ("sign in, known record that another node changed", Some(2.0), || {
        Scene::new(WhenFull::Deny, 1, 1).sign_in(0, Told::Admitted)
    }),
    ("sign out", None, || Scene::new(WhenFull::Deny, 1, 0).sign_out()),
    ("sign in, denied, all sessions on this node", Some(1.0), || {
        Scene::new(WhenFull::Deny, LIMIT, 0).sign_in(0, Told::Denied)
    }),
    ("sign in, denied, all sessions on another node", Some(2.0), || {
        Scene::new(WhenFull::Deny, 0, LIMIT).sign_in(0, Told::Denied)
    }),
    ("sign in, evicts a session of this node", Some(1.0), || {
        Scene::new(WhenFull::EvictOldest, LIMIT, 0).sign_in(0, Told::Admitted)
    }),
    ("sign in, evicts a session of another node", Some(2.0), || {
        Scene::new(WhenFull::EvictOldest, 0, LIMIT).sign_in(0, Told::Admitted)
    }),
    ("an operator sets a limit", None, || Scene::new(WhenFull::Deny, 0, 0).set_limit()),
    ("first sign in after another node has set a limit", None, || Scene::after_set_limit().sign_in(0, Told::Admitted)),
];

/// Two nodes, and one user with some sessions on each.
struct Scene {
    world: World,
    user: UserId,
    sessions: Vec<SessionId>,
}

impl Scene {
    fn new(when_full: WhenFull, here: u32, there: u32) -> Self {
        let user = UserId::parse("user-00000000").expect("it is valid");
        let mut world = World::new(2, 1, 1, policy(when_full));
        world.run_until_open();
        let mut sessions = Vec::new();
        for node in (0..here).map(|_| 0).chain((0..there).map(|_| 1)) {
            sessions.push(world.sign_in(node, &user, 0));
            world.run_for(100 * MS);
        }
        // Between two beats, so that none of them gets in between.
        let traffic = world.traffic();
        while (world.traffic() - traffic).beats < 4 {
            world.run_for(10 * MS);
        }
        world.run_for(20 * MS);
        Self { world, user, sessions }
    }

    fn sign_in(mut self, node: usize, expected: Told) -> Cost {
        let user = self.user.clone();
        self.measure(node, expected, |world| {
            world.sign_in(node, &user, 0);
        })
    }

    fn sign_out(mut self) -> Cost {
        let session = self.sessions[0];
        self.measure(0, Told::Released, |world| world.sign_out(0, session))
    }

    /// Just after an operator has set the limit of another user of the bucket, at the other node.
    fn after_set_limit() -> Self {
        let mut scene = Self::new(WhenFull::Deny, 0, 0);
        scene.world.set_limit(1, &other_user(), 0, SlotLimit::new(1).expect("it is below the ceiling"));
        scene.world.run_for(20 * MS);
        scene
    }

    fn set_limit(mut self) -> Cost {
        let limit = SlotLimit::new(1).expect("it is below the ceiling");
        self.measure(0, Told::LimitSet, |world| world.set_limit(0, &other_user(), 0, limit))
    }

    fn measure(&mut self, node: usize, expected: Told, act: impl FnOnce(&mut World)) -> Cost {
        let world = &mut self.world;
        let (before, began, told) = (world.traffic(), world.now, world.nodes[node].told.len());
        act(world);
        world.run_for(200 * MS);
        let after = world.nodes[node].told[told..].iter().find(|(_, told)| *told == expected);
        let (at, _) = *after.expect("the client was told");
        // The time that the store needs is much less than half a round trip.
        let half_trips = (at - began) / (ROUND_TRIP / 2);
        let half_trips = u32::try_from(half_trips).expect("there are few");
        Cost { requests: (world.traffic() - before).work(), round_trips: f64::from(half_trips) / 2.0 }
    }
}

fn other_user() -> UserId {
    UserId::parse("user-00000001").expect("it is valid")
}

fn policy(when_full: WhenFull) -> AdmissionPolicy {
    let limit = SlotLimit::new(LIMIT).expect("it is below the ceiling");
    AdmissionPolicy { when_full, ..AdmissionPolicy::new(limit) }
}

/// A node that does nothing, and sessions that do nothing.
fn print_idle() {
    const HOUR: u64 = 3600 * SECOND;
    const SESSIONS: u64 = 1000;
    let hour = |sessions: u64| {
        let mut world = World::new(1, BUCKETS, 4, policy(WhenFull::Deny));
        world.run_until_open();
        for number in 0..sessions {
            let user = UserId::parse(&format!("user-{number:08}")).expect("it is valid");
            world.sign_in(0, &user, u16::try_from(number % u64::from(BUCKETS)).expect("there are few"));
        }
        world.run_for(10 * SECOND);
        let before = world.traffic();
        world.run_for(HOUR);
        world.traffic() - before
    };
    let (without, with) = (hour(0), hour(SESSIONS));
    let extra = (with.beats + with.work()).saturating_sub(without.beats + without.work());
    println!("{:<48} {:>9} {:>12} {:>8}", "idle session, for an hour", extra / SESSIONS, "", goal(0, extra == 0));
    let a_second = (without.beats + without.work()) / (HOUR / SECOND);
    println!("{:<48} {a_second:>9} {:>12} {:>8}", "idle node, 64 buckets, for a second", "", goal(40, a_second <= 40));
    let beats = HOUR / (2 * SECOND) * 4;
    let hundredths = without.pipelines * 100 / beats;
    let trips = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    println!("{:<48} {:>9} {trips:>12} {:>8}", "idle node, for a beat and a shard", 16, goal(2, hundredths <= 200));
    println!("{:<48} {:>9} bytes", "idle node alone, for a second", without.beat_bytes / (HOUR / SECOND));
}

fn goal(goal: u64, is_met: bool) -> String {
    format!("{goal} {}", met(is_met))
}
