//! The user writer with a retention scan, whose batches the test takes one by one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use session_core::ledger::Outcome;
use session_core::ledger::StoreCommand;
use tempfile::TempDir;

use super::super::open::open;
use super::super::queue::{SeenSender, TakenUpdates};
use super::super::writer::{UserWriter, user_writer};
use super::*;
use crate::runtime::clock::{Clock, ManualClock};
use crate::runtime::process::Process;
use crate::store::lmdb::directory_watch::DirectoryState;
use crate::store::lmdb::environment::{Durability, ReopeningEnv, Uncommitted, faults};
use crate::store::lmdb::queue::{Queue, TakeResult};
use crate::store::lmdb::shared_writer::SharedWriter;
use crate::store::lmdb::testing::{NODE, OutcomeChannel, TIMEOUT, acquire, granted, policy, release, unwatched, user};
use crate::store::lmdb::writer::Writer;
use crate::store::shared::NodeContext;

const HOUR: Duration = Duration::from_secs(3600);
const MILLI: Duration = Duration::from_millis(1);

/// When the server started.
const START: u64 = 1000;

fn day(day: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(day * 24 * 3600))
}

fn first(day_of_it: u64) -> KnownUser {
    KnownUser { first_seen: day(1), last_seen: day(day_of_it) }
}

/// A user writer that forgets after 30 days, with a manual clock.
struct Subject {
    directory: TempDir,
    seen_sender: SeenSender,
    user_writer: UserWriter,
    manual_clock: Arc<ManualClock>,
    queue: Open,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A queue that closes when the test ends.
struct Open(Arc<Queue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Subject {
    /// Knows these users. A thread in the writer's place answers that those in `holders` hold slots.
    fn new(known: impl IntoIterator<Item = (impl AsRef<str>, KnownUser)>, holders: &[&str]) -> Self {
        Self::unanswered(known, 4 << 20).answered(holders)
    }

    fn answered(self, holders: &[&str]) -> Self {
        let (queue, asked) = (Arc::clone(&self.queue.0), Arc::clone(&self.asked));
        let holders: BTreeSet<_> = holders.iter().map(|&id| user(id)).collect();
        thread::spawn(move || {
            let mut batch = VecDeque::new();
            while queue.take(&mut batch, &mut Vec::new(), 1000, None) == TakeResult::Batch {
                for (command, done) in batch.drain(..) {
                    assert!(matches!(command, StoreCommand::CountSlots { .. }), "{command:?}");
                    asked.lock().unwrap().push(command.user().to_string());
                    done.answer(Outcome::Counted { slots: holders.contains(command.user()).into() });
                }
            }
        });
        self
    }

    fn unanswered(known: impl IntoIterator<Item = (impl AsRef<str>, KnownUser)>, map_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (seen_sender, mut user_writer) = user_writer(
            open(directory.path(), map_bytes).unwrap(),
            policy(),
            Clock::start(),
            DirectoryState::default(),
        );
        let (manual_clock, queue) = (Arc::<ManualClock>::default(), Arc::new(Queue::new(64)));
        manual_clock.set(day(START));
        user_writer.clock = Clock::manual(Arc::clone(&manual_clock));
        let forget = Retention::After(30 * DAY);
        let user_writer = user_writer.with_retention(forget, SlotQuery::new(Arc::clone(&queue), NODE, Clock::start()));
        let mut subject =
            Self { directory, seen_sender, user_writer, manual_clock, queue: Open(queue), asked: Arc::default() };
        subject.put(known.into_iter().map(|(id, user)| (id, user.encode())));
        subject
    }

    fn put(&mut self, records: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[u8]>)>) {
        let environment = self.user_writer.env.environment().unwrap();
        let mut txn = environment.write().unwrap();
        for (id, bytes) in records {
            environment.records.put(&mut txn, id.as_ref().as_bytes(), bytes.as_ref()).unwrap();
        }
        environment.commit(txn).unwrap();
    }

    /// All known users.
    fn known(&mut self) -> Vec<String> {
        let environment = self.user_writer.env.environment().unwrap();
        let txn = environment.write().unwrap();
        let keys = environment.records.iter(&txn).unwrap().map(|entry| entry.unwrap().0.to_vec());
        keys.map(|key| String::from_utf8(key).unwrap()).collect()
    }

    fn get(&mut self, id: &str) -> Option<KnownUser> {
        let environment = self.user_writer.env.environment().unwrap();
        let txn = environment.write().unwrap();
        environment.records.get(&txn, id.as_bytes()).unwrap().map(|bytes| KnownUser::decode(bytes).unwrap())
    }

    fn scan(&mut self) -> &mut RetentionScan {
        self.user_writer.scan.as_mut().unwrap()
    }

    /// Takes the next batch, due or not.
    fn batch(&mut self) -> RetentionBatch {
        self.scan().due = Instant::now();
        self.user_writer.next_batch().unwrap()
    }

    /// One turn of the user writer, which notes these users as seen now.
    fn turn(&mut self, seen: &[&str]) {
        let batch = self.batch();
        let now = self.dial_now();
        self.user_writer.write_seen(seen.iter().map(|id| (user(id), now)).collect(), Some(batch));
    }

    /// Makes a pass over the table: how many batches it takes.
    fn pass(&mut self) -> usize {
        for steps in 1..100_000 {
            self.turn(&[]);
            if self.scan().past.is_none() {
                return steps;
            }
        }
        panic!("a pass comes to an end");
    }

    fn pass_at(&mut self, time: Timestamp) {
        self.manual_clock.set(time);
        self.pass();
    }

    fn dial_now(&self) -> Timestamp {
        self.user_writer.clock.now()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn in_doubt() -> Uncommitted {
    Uncommitted::InDoubt(heed::Error::Io(ErrorKind::Other.into()))
}

fn full_disk() -> Uncommitted {
    Uncommitted::NotApplied(heed::Error::Io(ErrorKind::StorageFull.into()))
}

#[test]
fn only_old_users_without_slots_are_forgotten() {
    let mut subject = Subject::new([("old", first(960)), ("holder", first(960)), ("recent", first(980))], &["holder"]);
    // Versions that this server cannot read, and a record that is not a user's.
    subject.put([("later version", [2, 7]), ("cut off", [1, 7]), ("a\nb", [1, 7])]);
    subject.put([("a\nb", first(960).encode())]);
    assert_eq!(subject.pass(), 1);
    assert_eq!(subject.known(), ["a\nb", "cut off", "holder", "later version", "recent"]);
    assert_eq!(subject.asked(), ["holder", "old"]);
}

#[test]
fn nobody_is_forgotten_early() {
    let mut subject = Subject::new([("ada", first(980))], &[]);
    let old = day(1010) + HOUR;
    subject.pass_at(Timestamp::from_epoch(old.since_epoch() - MILLI));
    assert_eq!(subject.known(), ["ada"]);
    assert_eq!(subject.asked(), [""; 0], "nor is the writer asked");
    subject.pass_at(old);
    assert_eq!(subject.known(), [""; 0]);
}

#[test]
fn user_with_a_slot_counts_as_seen() {
    let mut subject = Subject::new([("ada", first(960)), ("bob", first(999))], &["ada"]);
    subject.pass();
    assert_eq!(subject.get("ada"), Some(first(START)));
    assert_eq!(subject.asked(), ["ada"]);
    subject.pass_at(day(START + 1));
    assert_eq!(subject.asked(), [""; 0], "not in every pass");
}

#[test]
fn user_seen_in_the_future_ages_from_start() {
    let mut subject = Subject::new([("ada", first(9999)), ("bob", first(START))], &[]);
    subject.pass();
    subject.pass_at(Timestamp::from_epoch(day(1030).since_epoch()));
    assert_eq!(subject.known(), ["ada", "bob"]);
    subject.pass_at(day(1030) + HOUR);
    assert_eq!(subject.known(), [""; 0]);
    // A difference as small as two clocks can have is not the future.
    let now = subject.dial_now();
    let ahead = |by: Duration| KnownUser { first_seen: day(1), last_seen: now + by }.encode();
    subject.put([("ada", ahead(HOUR)), ("bob", ahead(HOUR + MILLI))]);
    subject.pass();
    assert_eq!(subject.known(), ["ada"]);
}

#[test]
fn clock_leap_forgets_no_user_at_once() {
    let mut subject = Subject::new([("ada", first(950)), ("bob", first(970)), ("new", first(START))], &[]);
    subject.pass();
    assert_eq!(subject.known(), ["ada", "bob", "new"], "for 30 days before the start nobody was seen");
    subject.pass_at(day(START + 10) + HOUR);
    assert_eq!(subject.known(), ["bob", "new"], "the 20 days between the two count");
    subject.pass_at(day(START + 30) + HOUR);
    assert_eq!(subject.known(), [""; 0]);
}

#[test]
fn shorter_pause_counts() {
    let known = [("ada", first(950)), ("zoe", first(971))];
    let mut subject = Subject::new(known, &[]);
    subject.pass();
    assert_eq!(subject.known(), ["zoe"]);
    // The scan does not know better.
    let mut subject = Subject::new(known, &[]);
    subject.scan().records = 1;
    subject.pass();
    assert_eq!(subject.known(), ["ada", "zoe"], "zoe was not looked at before ada");
    subject.pass();
    assert_eq!(subject.known(), ["zoe"]);
}

#[test]
fn batch_is_bounded_and_continues_where_it_ended() {
    let names: Vec<_> = (0..10_000).map(|number| format!("user {number:0>4}")).collect();
    let every_third = |number: &usize| number.is_multiple_of(3);
    let age = |number| first(if every_third(&number) { 990 } else { 960 });
    let known = names.iter().enumerate().map(|(number, name)| (name.as_str(), age(number)));
    let mut subject = Subject::new([("a", first(990))], &[]);
    subject.put(known.map(|(name, user)| (name, user.encode())));
    for (forgotten, looked_at) in [(0, 4096), (2730, 4096), (5460, 1809)] {
        assert_eq!(subject.known().len(), 10_001 - forgotten);
        let batch = subject.batch();
        assert!(batch.forgettable.len() <= looked_at * 2 / 3 + 1, "{} after {forgotten}", batch.forgettable.len());
        subject.user_writer.write_seen(BTreeMap::new(), Some(batch));
        let told = if subject.scan().past.is_some() { 10_001 - subject.known().len() } else { 0 };
        assert_eq!(subject.scan().forgotten, told, "the pass counts whom it has forgotten");
    }
    let kept: Vec<_> = (0..10_000).filter(every_third).map(|number| names[number].clone()).collect();
    assert_eq!(subject.known()[1..], kept);
    assert_eq!(subject.asked().len(), 6666, "each once");
    assert_eq!(subject.pass(), 1, "the next pass begins at the beginning");
}

#[test]
fn between_passes_it_rests() {
    let mut subject = Subject::new([("ada", first(999))], &[]);
    let start = Instant::now();
    subject.scan().records = 1;
    subject.put([("bob", first(999).encode())]);
    subject.turn(&[]);
    assert!(subject.scan().due <= Instant::now(), "there are more records");
    assert!(subject.user_writer.next_batch().is_some());
    subject.pass();
    assert!(subject.scan().due >= start + DAY);
    assert!(subject.user_writer.next_batch().is_none());

    let scan =
        |forget| RetentionScan::new(forget, SlotQuery::new(Arc::new(Queue::new(1)), NODE, Clock::start()), day(START));
    assert!(scan(Retention::Never).is_none());
    for (forget_after, first_rest, rest) in [
        (HOUR, Duration::from_secs(150), Duration::from_secs(150)),
        (10 * DAY, FIRST_REST, 10 * HOUR),
        (1000 * DAY, FIRST_REST, DAY),
        (Duration::MAX, FIRST_REST, DAY),
    ] {
        let before = Instant::now();
        let scan = scan(Retention::After(forget_after)).unwrap();
        assert_eq!(scan.rest, rest);
        assert!((before + first_rest..=Instant::now() + first_rest).contains(&scan.due));
    }
}

#[test]
fn scan_without_old_users_writes_nothing() {
    let mut subject = Subject::new([("ada", first(990)), ("bob", first(9999))], &[]);
    subject.put([("later version", [2, 7])]);
    faults::fail([full_disk()]);
    subject.pass();
    subject.turn(&["ada", "later version"]);
    assert!(faults::next().is_none(), "ada was noted");
    faults::fail([full_disk()]);
    subject.user_writer.write_seen(BTreeMap::from([(user("later version"), day(START))]), None);
    subject.turn(&[]);
    assert!(faults::next().is_some(), "there was no commit");
}

#[test]
fn user_granted_meanwhile_stays() {
    let old = ["ada", "bob", "eve"].map(|id| (id, first(960)));
    let mut subject = Subject::new(old.into_iter().chain([("zoe", first(999))]), &[]);
    let batch = subject.batch();
    assert_eq!(batch.forgettable, [user("ada"), user("bob"), user("eve")]);
    subject.seen_sender.send([(user("bob"), day(START))]);
    subject.user_writer.write_seen(BTreeMap::from([(user("ada"), day(START))]), Some(batch));
    assert_eq!(subject.known(), ["ada", "bob", "zoe"]);
    // The note of bob is still pending.
    assert_eq!([subject.get("ada"), subject.get("bob")], [Some(first(START)), Some(first(960))]);
    let TakenUpdates { seen, ended, .. } = subject.user_writer.queue.take(Instant::now(), None);
    assert!(!ended);
    subject.user_writer.write_seen(seen, None);
    assert_eq!(subject.get("bob"), Some(first(START)));
    // A user who comes after being forgotten is known anew.
    subject.turn(&["eve"]);
    assert_eq!(subject.get("eve"), Some(KnownUser { first_seen: day(START), last_seen: day(START) }));
}

#[test]
fn changed_record_is_judged_again() {
    let old = ["ada", "bob", "eve"].map(|id| (id, first(960)));
    let mut subject = Subject::new(old.into_iter().chain([("zoe", first(999))]), &[]);
    let batch = subject.batch();
    subject.put([("ada", [2, 7])]);
    let environment = subject.user_writer.env.environment().unwrap();
    let mut txn = environment.write().unwrap();
    environment.records.delete(&mut txn, b"bob").unwrap();
    environment.commit(txn).unwrap();
    subject.user_writer.write_seen(BTreeMap::new(), Some(batch));
    assert_eq!(subject.known(), ["ada", "zoe"]);
}

#[test]
fn uncommitted_batch_is_tried_again_smaller() {
    let names: Vec<_> = (0..20).map(|number| format!("user {number:0>2}")).collect();
    let mut subject = Subject::new(names.iter().map(|name| (name.as_str(), first(960))), &[]);
    subject.put([("a", first(999).encode())]);
    subject.scan().records = 10;
    subject.turn(&[]);
    assert_eq!(subject.known().len(), 12);
    subject.scan().records = 10;
    // The second attempt finds the environment closed.
    faults::fail([in_doubt()]);
    subject.turn(&["b"]);
    assert_eq!(subject.known().len(), 12);
    assert_eq!(subject.scan().past.as_deref(), Some(b"user 08".as_slice()));
    assert_eq!(subject.scan().records, 5);
    for _ in 0..5 {
        faults::fail([full_disk(), full_disk()]);
        subject.turn(&[]);
    }
    assert_eq!(subject.scan().records, 1);
    subject.turn(&[]);
    assert_eq!(subject.known().len(), 11);
    assert_eq!(subject.scan().records, RECORDS);
    subject.pass();
    assert_eq!(subject.known(), ["a"]);
}

#[test]
fn scan_resumes_when_the_table_is_readable() {
    let mut subject = Subject::new([("ada", first(960)), ("bob", first(999))], &[]);
    let environment = subject.user_writer.env.environment().unwrap();
    faults::fail([in_doubt()]);
    environment.commit(environment.write().unwrap()).unwrap_err();
    subject.scan().due = Instant::now();
    assert!(subject.user_writer.next_batch().is_none());
    assert_eq!(subject.known(), ["ada", "bob"], "it is open again");
    subject.scan().records = RECORDS;
    subject.pass();
    subject.pass();
    assert_eq!(subject.known(), ["bob"]);
}

#[test]
fn unwritable_notes_do_not_stop_forgetting() {
    let mut subject = Subject::new([("ada", first(960)), ("bob", first(999))], &[]);
    subject.pass();
    subject.put([("ada", first(960).encode())]);
    faults::fail([full_disk()]);
    subject.turn(&["eve"]);
    assert_eq!(subject.known(), ["bob", "eve"], "and noted once there is room");
}

#[test]
fn user_granted_meanwhile_stays_without_a_note() {
    let mut subject = Subject::new([("ada", first(960)), ("eve", first(960)), ("bob", first(999))], &[]);
    let batch = subject.batch();
    assert_eq!(batch.forgettable, [user("ada"), user("eve")]);
    faults::fail([full_disk()]);
    subject.user_writer.write_seen(BTreeMap::from([(user("ada"), day(START))]), Some(batch));
    assert_eq!(subject.known(), ["ada", "bob"]);
    assert_eq!(subject.get("ada"), Some(first(START)), "what it was known for is not lost");
}

#[test]
fn forgetting_makes_room_in_a_full_map() {
    let mut subject = Subject::unanswered([("old", first(960))], 1 << 20);
    let names: Vec<_> = (0..6000).map(|number| format!("{number:0>200}")).collect();
    for names in names.chunks(100) {
        let seen = names.iter().map(|name| (user(name), day(960)));
        subject.user_writer.write_seen(seen.collect(), None);
    }
    let full = subject.known().len();
    assert!((2000..5000).contains(&full), "{full} are known");
    subject
        .user_writer
        .write_seen(BTreeMap::from([(user("new"), day(START)), (user(&names[0]), day(START - 1))]), None);
    assert_eq!(subject.get("new"), None);
    assert_eq!(subject.get(&names[0]).unwrap().last_seen, day(START - 1), "there is room for those who are known");
    let mut subject = subject.answered(&[]);
    subject.pass();
    subject.pass();
    assert_eq!(subject.known(), [names[0].as_str()]);
    subject.turn(&["new"]);
    assert!(subject.get("new").is_some());
}

#[test]
fn scan_asks_the_writer() {
    let mut subject = Subject::unanswered([("ada", first(960)), ("bob", first(960)), ("eve", first(999))], 4 << 20);
    let directory = tempfile::tempdir().unwrap();
    let live = ReopeningEnv::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
    // The notes are lost, so that only the slots count.
    let other = tempfile::tempdir().unwrap();
    let (seen_sender, _) =
        user_writer(open(other.path(), 4 << 20).unwrap(), policy(), Clock::start(), DirectoryState::default());
    let writer = Writer::new(
        live,
        NodeContext::with_policy(NODE, policy(), Process::start()),
        seen_sender,
        DirectoryState::default(),
    );
    let writer = SharedWriter::new(Arc::clone(&subject.queue.0), writer);
    let thread = thread::spawn(move || writer.run(&unwatched()));
    let answers = OutcomeChannel::default();
    let ask = |subject: &Subject, command| {
        subject.queue.0.push(command, answers.completion());
        answers.next()
    };
    assert_eq!(ask(&subject, acquire("ada", 1)), granted(1));
    subject.pass();
    assert_eq!(subject.known(), ["ada", "eve"]);
    assert_eq!(ask(&subject, release("ada", 1)), Outcome::Released);
    subject.pass_at(day(START + 30));
    assert_eq!(subject.known(), ["ada"], "ada was seen at the last pass");
    subject.pass_at(day(START + 30) + HOUR);
    assert_eq!(subject.known(), [""; 0]);
    subject.queue.0.close();
    thread.join().unwrap();
}

#[test]
fn queue_waits_for_users_or_scan_and_pause() {
    let mut subject = Subject::unanswered([("ada", first(960))], 4 << 20);
    let queue = Arc::clone(&subject.user_writer.queue);
    let (near, later) = (Duration::from_millis(5), Duration::from_millis(10));
    let far = Instant::now() + Duration::from_secs(1000);
    let took = |until, due| {
        let TakenUpdates { seen, ended, .. } = queue.take(until, due);
        assert!(!ended);
        seen.len()
    };
    let start = Instant::now();
    assert_eq!(took(start, Some(start + near)), 0);
    assert!(start.elapsed() >= near, "the step is due");
    assert_eq!(took(start + later, Some(start)), 0);
    assert!(start.elapsed() >= later, "the pause is over");
    subject.seen_sender.send([(user("ada"), day(START)), (user("bob"), day(START))]);
    let start = Instant::now();
    assert_eq!(took(start + near, Some(far)), 2);
    assert!(start.elapsed() >= near);
    drop(subject.seen_sender);
    for due in [Some(far), None] {
        let TakenUpdates { seen, ended, .. } = queue.take(far, due);
        assert!(seen.is_empty() && ended);
    }
}

#[test]
fn idle_user_writer_scans() {
    let mut subject = Subject::unanswered([("ada", first(960)), ("bob", first(999))], 4 << 20);
    subject.scan().due = Instant::now();
    let Subject { directory, seen_sender, user_writer, queue, .. } = subject;
    let thread = thread::spawn(move || user_writer.run(&unwatched()));
    let mut batch = VecDeque::new();
    assert_eq!(queue.0.take(&mut batch, &mut Vec::new(), 1, Some(TIMEOUT)), TakeResult::Batch);
    batch.drain(..).for_each(|(_, done)| done.answer(Outcome::Counted { slots: 0 }));
    drop(seen_sender);
    thread.join().unwrap();
    let mut env = open(directory.path(), 4 << 20).unwrap();
    assert_eq!(env.environment().unwrap().entries(), 1);
}

#[test]
fn end_does_not_wait_for_the_scan() {
    // In the second case the next batch is due.
    for due in [Duration::from_secs(1000), Duration::ZERO] {
        let mut subject = Subject::new([("ada", first(960)), ("bob", first(999))], &[]);
        subject.scan().due = Instant::now() + due;
        let Subject { directory, mut seen_sender, user_writer, .. } = subject;
        seen_sender.send([(user("eve"), day(START))]);
        drop(seen_sender);
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            user_writer.run(&unwatched());
            ended.send(()).unwrap();
        });
        end.recv_timeout(TIMEOUT).unwrap();
        let mut env = open(directory.path(), 4 << 20).unwrap();
        assert_eq!(env.environment().unwrap().entries(), 3);
    }
}
