//! Histories of a cluster that once went wrong, step by step. The simulation of the cluster draws its histories at random,
//! and meets these seldom or never.

mod net;

use std::time::Duration;

use session_core::cluster::{Bucket, BucketEvent, BucketKeys, OverridesOutcome, Request};
use session_core::ledger::{
    AcquireOptions, AdmissionPolicy, CountBy, EndReason, EndTarget, EndedSession, Evict, Outcome, SlotLimit,
    StoreCommand, StoreError, UserOverrides, WhenFull,
};
use session_core::{DisplayName, NodeId, ResumeKey, ResumeToken, UserId};

use net::{Net, timing, user};

fn slots(slots: u32) -> SlotLimit {
    SlotLimit::new(slots).expect("it is valid")
}

fn policy(limit: u32) -> AdmissionPolicy {
    AdmissionPolicy::new(slots(limit))
}

/// A limit that an operator sets for the user.
fn limit(limit: u32) -> UserOverrides {
    UserOverrides { limit: Some(slots(limit)), when_full: None }
}

/// One slot, which lingers for longer than a lease.
fn long_linger() -> AdmissionPolicy {
    AdmissionPolicy { linger: Duration::from_secs(30), ..policy(1) }
}

fn resume_key() -> ResumeKey {
    ResumeToken::new([7; 32]).key()
}

/// The options of a client that gets a resume token.
fn resumable() -> AcquireOptions {
    AcquireOptions { new_resume_key: Some(resume_key()), ..AcquireOptions::default() }
}

/// The options of a client that shows that token, and accepts no other slot.
fn resuming() -> AcquireOptions {
    AcquireOptions { resume: Some(resume_key()), must_resume: true, ..AcquireOptions::default() }
}

/// A client is lost, and resumes its slot at another node. A failover brings the lingering slot back, and the node of
/// the session that resumed it writes that down again. Then another client shows the token.
#[test]
fn resumed_slot_does_not_linger_again() {
    let mut net = Net::new(&[0xa, 0xb], long_linger());
    let replica = net.replica_with_lingering_slot(resumable());
    let second = net.session(0, 1);
    assert!(net.admit(0, second, resuming()));
    net.fail_over(replica);
    net.run(5000);
    assert_eq!(net.keys.record(&user()).sessions().len(), 1, "the slot is there once");
    let third = net.session(0, 2);
    net.acquire(0, third, resuming());
    net.deliver(0);
    assert!(!net.tell(0, third), "two clients are in, of 1");
    assert!(!net.serves(0, second));
    net.handle(0, BucketEvent::Closed(user(), second));
    assert!(net.tell(0, third), "it has the slot");
}

/// A client has resumed its slot at another node. A failover brings the session back that had it before. As soon as the
/// gate is open, another client shows the token.
#[test]
fn resumed_slot_is_not_there_twice() {
    let mut net = Net::new(&[0xa, 0xb], long_linger());
    let first = net.session(1, 1);
    assert!(net.admit(1, first, resumable()));
    net.run(150);
    let replica = net.keys.clone();
    let second = net.session(0, 1);
    net.acquire(0, second, resuming());
    net.deliver(0);
    net.handle(1, BucketEvent::Hinted(user()));
    net.deliver(1);
    assert!(!net.serves(1, first));
    net.handle(1, BucketEvent::Closed(user(), first));
    net.deliver(1);
    net.handle(0, BucketEvent::Hinted(user()));
    net.deliver(0);
    assert!(net.tell(0, second));
    net.fail_over(replica);
    net.run(200);
    assert!(!net.may_admit(0), "the gate is closed");
    net.run_until_gate_opens(0);
    assert_eq!(net.keys.record(&user()).sessions().len(), 1, "the slot is there once");
    let third = net.session(0, 2);
    net.acquire(0, third, resuming());
    net.run(300);
    let is_told = net.tell(0, third);
    assert!(!(is_told && net.serves(0, second)), "two clients are in, of 1");
}

/// A slot that lingers is taken by another client, which is told. A failover brings the lingering slot back, and its
/// client resumes it.
#[test]
fn taken_slot_is_not_resumed_after_a_failover() {
    let mut net = Net::new(&[0xa, 0xb], AdmissionPolicy { when_full: WhenFull::EvictOldest, ..long_linger() });
    let replica = net.replica_with_lingering_slot(resumable());
    let second = net.session(0, 1);
    assert!(net.admit(0, second, AcquireOptions::default()));
    net.fail_over(replica);
    net.run(5000);
    let third = net.session(1, 2);
    net.acquire(1, third, resuming());
    net.run(300);
    assert!(!net.tell(1, third), "two clients are in, of 1");
    net.run(5000);
    assert!(net.serves(0, second));
}

/// A failover brings 600 sessions back that have gone, beside as many that are in: more than any limit allows.
#[test]
fn restored_record_can_be_read() {
    let mut net = Net::new(&[0xa, 0xb], policy(1024));
    let admit_all = |net: &mut Net, index: usize| {
        for number in 1..=600 {
            let session = net.session(index, number);
            assert!(net.admit(index, session, AcquireOptions::default()), "{session}");
        }
    };
    admit_all(&mut net, 1);
    net.run(200);
    let replica = net.keys.clone();
    for number in 1..=600 {
        let session = net.session(1, number);
        net.submit(1, StoreCommand::Release { user: user(), session });
    }
    net.deliver(1);
    admit_all(&mut net, 0);
    net.fail_over(replica);
    net.run(3000);
    assert_eq!(net.keys.record(&user()).sessions().len(), 600);
}

/// A client is lost and never comes back. After its grace period its slot is of no use, and no node has died.
#[test]
fn record_that_only_lingers_is_removed() {
    let lingers = AdmissionPolicy { linger: Duration::from_millis(300), ..policy(1) };
    let memory = Duration::from_secs(10);
    let mut net = Net::with_timing(&[0xa, 0xb], lingers, timing().with_memory(memory));
    let session = net.session(0, 1);
    assert!(net.admit(0, session, resumable()));
    net.lose_client(0, session);
    net.run(200);
    assert_eq!(net.keys.users().count(), 1, "it lingers");
    net.run(20_000);
    assert_eq!(net.keys.users().count(), 0, "{:?}", net.keys.record(&user()));
    let lapsed: Vec<_> = net.nodes.iter().flat_map(|node| &node.lapsed).collect();
    assert_eq!(lapsed, [&session], "one node says so, once");
}

/// A newcomer takes the slot of a session that lingers. Another node was quicker with a change of the record, so the first
/// decision does not count.
#[test]
fn displaced_session_is_named_once() {
    let lingers = AdmissionPolicy { linger: Duration::from_secs(30), linger_grace: Duration::ZERO, ..policy(2) };
    let mut net = Net::new(&[0xa, 0xb], lingers);
    let [lost, second] = [1, 2].map(|number| net.session(0, number));
    let [other, third] = [1, 2].map(|number| net.session(1, number));
    assert!(net.admit(0, lost, resumable()) && net.admit(0, second, resumable()));
    net.lose_client(0, lost);
    net.run(200);
    net.acquire(1, other, AcquireOptions::default());
    let is_decided = |request: &Request| matches!(request, Request::Write(write) if write.expected.is_some());
    let (id, late) = net.deliver_until(1, is_decided).expect("it has read the record");
    net.lose_client(0, second);
    net.deliver(0);
    let refused = net.apply(&late);
    net.handle(1, BucketEvent::Answered(id, refused));
    assert_eq!(net.nodes[1].displaced, [], "it was decided, and not done");
    net.deliver(1);
    assert!(net.tell(1, other));
    let displaced = |session| EndedSession { session, reason: EndReason::TakenOver(None) };
    assert_eq!(net.nodes[1].displaced, [displaced(lost)]);
    assert!(net.admit(1, third, AcquireOptions::default()));
    assert_eq!(net.nodes[1].displaced, [lost, second].map(displaced));
    net.run(500);
    let said: usize = net.nodes.iter().map(|node| node.lapsed.len() + node.displaced.len()).sum();
    assert_eq!(said, 2, "each once");
}

/// A session is denied a slot, and asks again before it has heard of that. Meanwhile a slot has become free.
#[test]
fn session_that_asks_twice_is_admitted() {
    let mut net = Net::new(&[0xa], AdmissionPolicy { when_full: WhenFull::Deny, ..policy(1) });
    let [first, second] = [1, 2].map(|number| net.session(0, number));
    assert!(net.admit(0, first, AcquireOptions::default()));
    // All of that is one change.
    net.handle(0, BucketEvent::Hinted(user()));
    let denied = net.acquire(0, second, AcquireOptions::default());
    let user = user();
    let (target, reason, at) = (EndTarget::All, EndReason::ByOperator, net.now());
    let end = StoreCommand::EndSessions { user: user.clone(), session: net.session(0, 0), target, reason, at };
    net.submit(0, end);
    let granted = net.acquire(0, second, AcquireOptions::default());
    net.deliver(0);
    assert!(matches!(net.outcome(0, denied), Some(Outcome::Denied(_))));
    assert_eq!(net.outcome(0, granted), None, "the other client is still served");
    assert!(!net.tell(0, second));
    net.handle(0, BucketEvent::Closed(user, first));
    assert!(matches!(net.outcome(0, granted), Some(Outcome::Granted { .. })));
    assert!(net.tell(0, second));
}

/// A node asks for the restoration of overrides after a failover. It is cut off and fences before that arrives. An
/// operator makes a change meanwhile, over the open gate.
#[test]
fn late_restore_undoes_no_change() {
    let mut net = Net::new(&[0xa, 0xb], policy(5));
    net.change_overrides(0, limit(3));
    net.run(300);
    let replica = net.keys.clone();
    for slots in [4, 2] {
        net.change_overrides(1, limit(slots));
    }
    net.fail_over(replica);
    let mut late = None;
    for _ in 0..30 {
        net.elapsed += Duration::from_millis(10);
        net.take_turn(0);
        net.handle(1, BucketEvent::Tick);
        if late.is_none() {
            late = net.deliver_until(1, |request| matches!(request, Request::RestoreOverrides { .. }));
        }
    }
    let (_, late) = late.expect("the node restores what it knows");
    net.nodes[1].is_cut_off = true;
    net.run(2000);
    assert!(net.nodes[1].fences > 0);
    net.change_overrides(0, limit(0));
    net.apply(&late);
    assert_eq!(net.keys.overrides(&user()), limit(0));
}

/// A failover loses a change that an operator was told of. Before a node notices, another one makes a change. The
/// node that knows the first one lives, and writes it down again.
#[test]
fn write_in_an_unnoticed_history_undoes_no_change() {
    // The ids decide which version is the newer one.
    for other in 1..9 {
        let mut net = Net::new(&[0x1234, 0x10 * other], policy(5));
        let replica = net.keys.clone();
        net.change_overrides(1, limit(0));
        net.fail_over(replica);
        let bob = UserId::parse("bob").expect("it is valid");
        let call = net.set_overrides(0, bob, limit(1));
        net.run(2000);
        assert_eq!((net.nodes[0].fences, net.nodes[1].fences), (0, 0));
        assert_eq!(net.overrides_outcome(0, call), Some(OverridesOutcome::Unknown));
        assert_eq!(net.keys.overrides(&user()), limit(0));
    }
}

/// Devices count. A client takes the slot of a device that is lost, and a failover brings that back beside it. Another
/// session of the device finds no room in it.
#[test]
fn taken_slot_is_not_shared_after_a_failover() {
    let device = |name| DisplayName::parse(name);
    let mut net = Net::new(&[0xa, 0xb], AdmissionPolicy { count_by: CountBy::Devices, ..long_linger() });
    let replica = net.replica_with_lingering_slot(AcquireOptions { device: device("desk"), ..resumable() });
    let takes = net.session(0, 1);
    // No longer kept for its client.
    net.run(6000);
    assert!(net.admit(0, takes, AcquireOptions { device: device("phone"), ..AcquireOptions::default() }));
    net.fail_over(replica);
    net.run(5000);
    assert_eq!(net.keys.record(&user()).sessions().len(), 2, "one of them lingers");
    let other = net.session(0, 2);
    net.acquire(
        0,
        other,
        AcquireOptions { device: device("desk"), evict: Some(Evict::Nobody), ..AcquireOptions::default() },
    );
    net.deliver(0);
    assert!(!net.tell(0, other), "two devices are in, of 1");
    assert!(net.serves(0, takes));
}

/// A failover loses changes, and the only node that knows them is cut off. An operator makes another change at the
/// other node. The node with the older ones comes back while the gate of the next failover is closed.
#[test]
fn forgotten_change_undoes_no_later_one() {
    for is_first_forgotten in [false, true] {
        let mut net = Net::new(&[0xa, 0xb], policy(5));
        if !is_first_forgotten {
            net.change_overrides(1, limit(2));
        }
        let replica = net.keys.clone();
        for slots in [3, 4] {
            net.change_overrides(1, limit(slots));
        }
        net.nodes[1].is_cut_off = true;
        net.fail_over(replica);
        net.run(2000);
        net.change_overrides(0, limit(0));
        net.nodes[1].is_cut_off = false;
        net.fail_over(net.keys.clone());
        net.run(2000);
        assert_eq!(net.keys.overrides(&user()), limit(0));
    }
}

/// A change is under way as a replica takes over that lacks the one before. The node reads the overrides there, before a
/// beat tells it that the store has another history.
#[test]
fn overrides_of_an_unnoticed_history_do_not_count() {
    // One of these moments is between two beats.
    for wait in [0, 30, 60] {
        let mut net = Net::new(&[0xa], policy(5));
        let replica = net.keys.clone();
        net.change_overrides(0, limit(0));
        net.run(wait);
        net.set_overrides(0, user(), limit(3));
        net.fail_over(replica);
        net.deliver(0);
        net.run(3000);
        assert_eq!(net.keys.overrides(&user()), limit(0));
    }
}

/// The others bury a node that has not noticed. It writes, and is refused although nothing has changed. It does not try
/// again and again until its next beat.
#[test]
fn buried_node_waits_for_its_next_beat() {
    let mut net = Net::new(&[0xa, 0xb], policy(5));
    let session = net.session(0, 1);
    net.apply(&Request::Bury { node: NodeId::new(0xa), beat: None, at: net.now() });
    let acquire = net.acquire(0, session, AcquireOptions::default());
    let change = net.set_overrides(0, user(), limit(0));
    net.deliver(0);
    assert_eq!(net.outcome(0, acquire), None);
    net.run(500);
    assert_eq!(net.outcome(0, acquire), Some(&Outcome::Rejected(StoreError::Failed)));
    assert_eq!(net.overrides_outcome(0, change), Some(OverridesOutcome::Unknown));
}

/// The store is away for longer than the fence, and comes back empty. No node was restarted.
#[test]
fn overrides_outlast_an_outage_while_a_node_lives() {
    let mut net = Net::new(&[0xa, 0xb], policy(5));
    net.change_overrides(0, limit(0));
    net.run(300);
    net.nodes.iter_mut().for_each(|node| node.is_cut_off = true);
    net.run(600);
    assert!(net.nodes.iter().all(|node| node.fences == 1));
    net.nodes.iter_mut().for_each(|node| node.is_cut_off = false);
    net.fail_over(BucketKeys::default());
    net.run(3000);
    assert_eq!(net.keys.overrides(&user()), limit(0));
}

/// An operator bans a user, who renews the token at another node before that one beats again. That node reads the
/// record, or writes the limit of the new token into it.
#[test]
fn renewal_obeys_a_new_limit_at_once() {
    for token_limit in [None, Some(slots(3))] {
        let mut net = Net::new(&[0xa, 0xb], policy(5));
        let session = net.session(1, 1);
        assert!(net.admit(1, session, AcquireOptions::default()));
        net.run(200);
        net.change_overrides(0, limit(0));
        let at = net.now();
        let renew = StoreCommand::Renew { user: user(), session, limit: token_limit, device: None, at };
        let call = net.submit(1, renew);
        net.deliver(1);
        assert!(matches!(net.outcome(1, call), Some(Outcome::NotRenewed(_))), "{:?}", net.outcome(1, call));
    }
}

/// The store comes back empty. An operator ends all sessions of a user before the node that serves one has written it
/// down again.
#[test]
fn closed_gate_rejects_the_end_of_sessions() {
    let mut net = Net::new(&[0xa, 0xb], policy(5));
    let session = net.session(1, 1);
    assert!(net.admit(1, session, AcquireOptions::default()));
    net.run(300);
    net.fail_over(BucketKeys::default());
    net.elapsed += timing().beat();
    net.take_turn(0);
    let (asker, at) = (NodeId::new(0).session(0), net.now());
    let (target, reason) = (EndTarget::All, EndReason::ByOperator);
    let call = net.submit(0, StoreCommand::EndSessions { user: user(), session: asker, target, reason, at });
    net.deliver(0);
    assert_eq!(net.outcome(0, call), Some(&Outcome::Rejected(StoreError::Failed)));
    net.run(2000);
    assert!(net.keys.record(&user()).session(session).is_some(), "it goes on");
}

/// A node whose only work is a change of overrides leaves once that is answered.
#[test]
fn node_with_a_change_is_not_idle() {
    let mut net = Net::new(&[0xa, 0xb], policy(1));
    assert!(net.nodes[0].bucket.is_idle());
    let calls = [1, 2].map(|slots| net.set_overrides(0, user(), limit(slots)));
    assert!(!net.nodes[0].bucket.is_idle());
    net.deliver(0);
    assert!(calls.iter().all(|call| net.is_set(0, *call)));
    assert!(net.nodes[0].bucket.is_idle());
}

/// A session is evicted while its node reads the record. The hint of that comes before the answer, which is older.
#[test]
fn hint_during_a_read_counts() {
    let mut net = Net::new(&[0xa, 0xb], AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    let first = net.session(1, 1);
    assert!(net.admit(1, first, AcquireOptions::default()));
    net.run(150);
    net.handle(1, BucketEvent::Hinted(user()));
    let read = net.deliver_until(1, |request| matches!(request, Request::Read(_)));
    let (id, read) = read.expect("it reads the record");
    let answer = net.apply(&read);
    let second = net.session(0, 1);
    net.acquire(0, second, AcquireOptions::default());
    net.deliver(0);
    net.handle(1, BucketEvent::Hinted(user()));
    net.handle(1, BucketEvent::Answered(id, answer));
    net.deliver(1);
    assert!(!net.serves(1, first), "it hears of its end before the next beat");
}

/// Three quarters of a small capacity are rounded up.
#[test]
fn small_capacity_admits_a_session() {
    let mut net = Net::new(&[0xa], policy(4));
    for capacity in 1..4 {
        let id = NodeId::new(0xa0 + capacity as u64);
        net.nodes[0].bucket = Bucket::new(id, None, policy(4), timing(), capacity, net.now());
        net.run(1000);
        let session = net.session(0, 1);
        assert!(net.admit(0, session, AcquireOptions::default()), "capacity {capacity}");
    }
}

/// The store is away. A command comes after the fence, before the node has joined again.
#[test]
fn command_at_a_fenced_node_is_answered() {
    let mut net = Net::new(&[0xa], policy(1));
    net.nodes[0].is_cut_off = true;
    net.run(700);
    assert_eq!(net.nodes[0].fences, 1);
    let (session, at) = (NodeId::new(0).session(1), net.now());
    let call = net.submit(0, StoreCommand::CountSlots { user: user(), session, at });
    assert_eq!(net.outcome(0, call), Some(&Outcome::Rejected(StoreError::Failed)));
}

/// A node is killed while its write is on the way, and is forgotten. Then the write arrives, and the session of that node
/// is evicted. Its end goes into no inbox: the node would never empty it.
#[test]
fn forgotten_node_gets_no_inbox() {
    let policy = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) };
    let mut net = Net::with_timing(&[0xa, 0xb], policy, timing().with_memory(timing().lease()));
    let first = net.session(1, 1);
    net.acquire(1, first, AcquireOptions::default());
    let write = net.deliver_until(1, |request| matches!(request, Request::Write(_)));
    let (_, late) = write.expect("it writes without a read");
    net.nodes.pop();
    net.run(4000);
    assert!(net.keys.nodes().all(|(node, _)| node != first.node()), "it is forgotten");
    net.apply(&late);
    assert!(net.keys.record(&user()).session(first).is_some(), "the write takes effect");
    let second = net.session(0, 1);
    net.acquire(0, second, AcquireOptions::default());
    net.deliver(0);
    assert_eq!(net.keys.in_inboxes(), 0);
    net.run(10_000);
    assert!(net.tell(0, second));
}

/// Somebody swaps the store's database for an empty one, and later swaps it back (`SWAPDB`). The store's history stays the same, and
/// the older data has an open gate and no slot of the session that was told meanwhile.
#[test]
fn older_data_that_comes_back_admits_nobody() {
    let mut net = Net::new(&[0xa, 0xb], policy(1));
    let older = std::mem::take(&mut net.keys);
    net.run(1500);
    let first = net.session(0, 1);
    assert!(net.admit(0, first, AcquireOptions::default()));
    net.keys = older;
    net.nodes[0].is_cut_off = true;
    net.run(200);
    let second = net.session(1, 1);
    assert!(!net.admit(1, second, AcquireOptions::default()), "two of one");
    net.nodes[0].is_cut_off = false;
    net.run(1500);
    assert!(net.keys.record(&user()).session(first).is_some() && net.serves(0, first));
    assert!(!net.admit(1, second, AcquireOptions::default()));
}
