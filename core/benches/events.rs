//! The cost of one event in the pure state machines: time and allocations.
//!
//! ```sh
//! cargo bench -p session-core
//! ```
//!
//! Each measurement creates its session and drops the results outside of the measured time.

use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use session_core::ledger::{self, StoreCommand};
use session_core::ledger::{AdmissionPolicy, Liveness, Outcome, SessionRecord, SlotLimit, StoreError, UserRecord};
use session_core::protocol::{ClientMessage, ServerMessage, UserSummary};
use session_core::release_tracker::{ReleaseTracker, Ticket};
use session_core::session::{Actions, Event, Identity, Session, SessionSettings};
use session_core::{NodeId, SessionId, Timestamp, UserId};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const NODE: NodeId = NodeId::new(0x5eed);
const AUTHENTICATE: Event<'static> = Event::Text(r#"{"type":"AUTHENTICATE","payload":"user-00000000"}"#);
const CHECK_CONNECTIONS: Event<'static> = Event::Text(r#"{"type":"CHECK_CONNECTIONS","payload":null}"#);
const BYE: Event<'static> = Event::Text(r#"{"type":"BYE","payload":null}"#);
const GRANTED: Event<'static> = Event::Stored(Outcome::granted(1));

fn main() {
    divan::main();
}

fn user() -> UserId {
    UserId::parse("user-00000000").expect("a good id")
}

fn verified() -> Event<'static> {
    Event::Verified(Ok(Identity::for_user(user())))
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(second))
}

/// A session after these events.
fn session(events: impl IntoIterator<Item = Event<'static>>) -> Session {
    let mut session = Session::new(NODE.session(1), &SessionSettings::default(), at(0));
    for event in events {
        drop(session.handle(event, at(1)));
    }
    session
}

/// A record with this many slots.
fn record(slots: u32) -> UserRecord {
    let slots = (1..=slots).map(|number| SessionRecord::new(id(number), at(1))).collect();
    UserRecord::from_sessions(slots).expect("sessions that differ, within the ceiling")
}

fn id(number: u32) -> SessionId {
    NODE.session(number.into())
}

/// One event of a session.
mod session_event {
    use super::*;

    fn measure(bencher: Bencher<'_, '_>, before: &[Event<'static>], event: &Event<'static>) {
        bencher
            .with_inputs(|| (session(before.iter().cloned()), event.clone()))
            .bench_local_values(|(mut session, event)| (session.handle(black_box(event), at(2)), session));
    }

    #[divan::bench]
    fn connected(bencher: Bencher<'_, '_>) {
        measure(bencher, &[], &Event::Connected);
    }

    #[divan::bench]
    fn authenticate(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected], &AUTHENTICATE);
    }

    #[divan::bench]
    fn verified_then_acquire(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected, AUTHENTICATE], &verified());
    }

    #[divan::bench]
    fn granted(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected, AUTHENTICATE, verified()], &GRANTED);
    }

    #[divan::bench]
    fn denied(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected, AUTHENTICATE, verified()], &Event::Stored(Outcome::Denied(None)));
    }

    #[divan::bench]
    fn check_connections(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected, AUTHENTICATE, verified(), GRANTED], &CHECK_CONNECTIONS);
    }

    #[divan::bench]
    fn alive(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected, AUTHENTICATE, verified(), GRANTED], &Event::Alive);
    }

    #[divan::bench]
    fn tick_that_is_early(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected, AUTHENTICATE, verified(), GRANTED], &Event::Tick);
    }

    #[divan::bench]
    fn bye(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected, AUTHENTICATE, verified(), GRANTED], &BYE);
    }

    #[divan::bench]
    fn nonsense(bencher: Bencher<'_, '_>) {
        measure(bencher, &[Event::Connected], &Event::Text("{\"type\":"));
    }

    /// From HELLO to BYE_SUCCESS, with the frames that are sent.
    #[divan::bench]
    fn whole_life(bencher: Bencher<'_, '_>) {
        bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
            let mut session = session([]);
            let mut bytes = 0;
            for event in [Event::Connected, AUTHENTICATE, verified(), GRANTED, BYE] {
                let Actions { effect, send, close } = session.handle(event, at(2));
                black_box((effect, close));
                bytes += match send {
                    Some(session_core::session::Frame::Message(reply)) => reply.encode().len(),
                    Some(session_core::session::Frame::Ping) | None => 0,
                };
            }
            bytes
        });
    }
}

/// The admission rule, and the encoding of records.
mod ledger_rule {
    use super::*;

    const LIMIT: [u32; 3] = [1, 3, 1024];

    fn measure(bencher: Bencher<'_, '_>, slots: u32, limit: u32, command: &StoreCommand) {
        let limit = SlotLimit::new(limit).expect("within the ceiling");
        bencher.with_inputs(|| record(slots)).bench_local_values(|mut record| {
            (
                ledger::apply(command.user(), &mut record, black_box(command), &AdmissionPolicy::new(limit), |_| {
                    Liveness::Alive
                }),
                record,
            )
        });
    }

    /// The last slot that the limit allows.
    #[divan::bench(args = LIMIT)]
    fn acquire_granted(bencher: Bencher<'_, '_>, limit: u32) {
        measure(
            bencher,
            limit - 1,
            limit,
            &StoreCommand::Acquire { user: user(), session: id(0), limit: None, at: at(2), options: None },
        );
    }

    #[divan::bench(args = LIMIT)]
    fn acquire_denied(bencher: Bencher<'_, '_>, limit: u32) {
        measure(
            bencher,
            limit,
            limit,
            &StoreCommand::Acquire { user: user(), session: id(0), limit: None, at: at(2), options: None },
        );
    }

    #[divan::bench(args = LIMIT)]
    fn release(bencher: Bencher<'_, '_>, limit: u32) {
        measure(bencher, limit, limit, &StoreCommand::Release { user: user(), session: id(limit) });
    }

    #[divan::bench(args = LIMIT)]
    fn lookup(bencher: Bencher<'_, '_>, limit: u32) {
        measure(bencher, limit, limit, &StoreCommand::CountSlots { user: user(), session: id(0), at: at(2) });
    }

    /// The acquire removes the slots of a dead node.
    #[divan::bench(args = LIMIT)]
    fn acquire_among_void_slots(bencher: Bencher<'_, '_>, limit: u32) {
        let acquire = StoreCommand::Acquire {
            user: user(),
            session: NodeId::new(2).session(1),
            limit: None,
            at: at(2),
            options: None,
        };
        let alive = |node| if node == NODE { Liveness::DeadSince(at(1)) } else { Liveness::Alive };
        bencher.with_inputs(|| record(limit)).bench_local_values(|mut record| {
            (
                ledger::apply(acquire.user(), &mut record, black_box(&acquire), &AdmissionPolicy::default(), alive),
                record,
            )
        });
    }

    #[divan::bench(args = LIMIT)]
    fn encode(bencher: Bencher<'_, '_>, slots: u32) {
        let mut bytes = Vec::new();
        let record = record(slots);
        bencher.bench_local(move || black_box(&record).encode(&mut bytes));
    }

    #[divan::bench(args = LIMIT)]
    fn decode(bencher: Bencher<'_, '_>, slots: u32) {
        let mut bytes = Vec::new();
        record(slots).encode(&mut bytes);
        bencher.bench_local(|| UserRecord::decode(black_box(&bytes)));
    }
}

/// The release tracker of a process with this many sessions.
mod tracker {
    use super::*;

    const SESSIONS: [u32; 3] = [0, 1_000, 100_000];

    fn acquire(number: u32) -> StoreCommand {
        StoreCommand::Acquire { user: user(), session: id(number), limit: None, at: at(1), options: None }
    }

    fn release(number: u32) -> StoreCommand {
        StoreCommand::Release { user: user(), session: id(number) }
    }

    fn serving(sessions: u32) -> ReleaseTracker {
        let mut tracker = ReleaseTracker::new(1 << 20);
        for number in 1..=sessions {
            tracker.begin(&acquire(number)).expect("room");
        }
        tracker
    }

    /// An acquire and its release without faults.
    #[divan::bench(args = SESSIONS)]
    fn slot_taken_and_given_back(bencher: Bencher<'_, '_>, sessions: u32) {
        let mut tracker = serving(sessions);
        let (acquire, release) = (acquire(0), release(0));
        bencher.bench_local(move || {
            tracker.begin(black_box(&acquire)).expect("room");
            tracker.answered(&Ticket::from(&acquire), &Outcome::granted(1), at(2));
            tracker.answered(&Ticket::from(&release), &Outcome::Released, at(3));
        });
    }

    /// A release that fails once and is retried.
    #[divan::bench(args = SESSIONS)]
    fn release_owed_and_paid(bencher: Bencher<'_, '_>, sessions: u32) {
        let mut tracker = serving(sessions);
        let (acquire, release) = (acquire(0), release(0));
        bencher.bench_local(move || {
            tracker.begin(black_box(&acquire)).expect("room");
            tracker.answered(&Ticket::from(&release), &Outcome::Rejected(StoreError::Failed), at(2));
            let again = tracker.next_retry(at(3));
            tracker.answered(&Ticket::from(&release), &Outcome::Released, at(3));
            again
        });
    }
}

/// Parsing and encoding of messages.
mod wire {
    use super::*;

    #[divan::bench]
    fn parse_request() -> Result<ClientMessage, session_core::protocol::RequestError> {
        ClientMessage::parse(black_box(r#"{"type":"AUTHENTICATE","payload":"user-00000000"}"#))
    }

    #[divan::bench]
    fn encode_reply(bencher: Bencher<'_, '_>) {
        let reply = ServerMessage::AuthenticateSuccess(UserSummary { id: user(), connections: 1 });
        bencher.bench_local(|| black_box(&reply).encode());
    }
}
