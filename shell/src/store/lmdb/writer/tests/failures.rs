//! Failures of commits and of the disk.

use super::super::super::mapped_file::faults::fail_allocations;
use super::*;

#[test]
fn after_a_failed_commit_what_was_to_be_written_is_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    serve(&mut writer, [acquire("ada", 1), acquire("bob", 2)]);
    put(&mut writer, "eve", &[9]);
    fail_next_commit();
    let outcomes = serve(
        &mut writer,
        [
            acquire("ada", 3),
            acquire("ada", 4),
            lookup("bob", 2),
            release("bob", 9),
            acquire("eve", 5),
            acquire("joe", 6),
        ],
    );
    assert_eq!(outcomes, [UNKNOWN, UNKNOWN, found(1), Outcome::Released, FAILED, UNKNOWN]);
    assert_eq!(serve(&mut writer, [lookup("ada", 1), acquire("ada", 3)]), [found(1), granted(2)]);
}

#[test]
fn commit_in_doubt_notifies_evicted_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, ended_sessions) = evicting_writer(directory.path(), NODE, 0);
    serve(&mut writer, [acquire("ada", 1), acquire("ada", 2)]);
    fail_next_commit();
    assert_eq!(serve(&mut writer, [acquire("ada", 3), acquire("bob", 4)]), [UNKNOWN, UNKNOWN]);
    assert_eq!(ended_sessions.try_iter().collect::<Vec<_>>(), [[taken_over(1)]]);
    // In fact it was not applied. The next acquire evicts the oldest again.
    assert_eq!(serve(&mut writer, [acquire("ada", 3)]), [granted(2)]);
    assert_eq!(ended_sessions.try_iter().collect::<Vec<_>>(), [[taken_over(1)]]);
}

#[test]
fn unapplied_eviction_notifies_no_session() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, ended_sessions) = evicting_writer(directory.path(), NODE, 0);
    serve(&mut writer, [acquire("ada", 1), acquire("ada", 2)]);
    let full = || Uncommitted::NotApplied(heed::MdbError::MapFull.into());
    let end = |asker| StoreCommand::EndSessions {
        user: user("ada"),
        session: NODE.session(asker),
        target: EndTarget::All,
        reason: EndReason::ByOperator,
        at: Timestamp::default(),
    };
    faults::fail([full()]);
    assert_eq!(serve(&mut writer, [acquire("ada", 3), release("bob", 4)]), [FULL, RELEASED]);
    assert_eq!(ended_sessions.try_iter().count(), 0);
    // The retry leaves out the acquire and applies the end, once.
    faults::fail([full()]);
    let ended = Outcome::Ended { sessions: [NODE.session(1)].into(), before: 2, slots: 1 };
    assert_eq!(serve(&mut writer, [end(2), acquire("ada", 3)]), [ended, FULL]);
    let by_operator = EndedSession { session: NODE.session(1), reason: EndReason::ByOperator };
    assert_eq!(ended_sessions.try_iter().collect::<Vec<_>>(), [[by_operator]]);
    // An end that cannot be applied at all ends no session.
    faults::fail([full(), full()]);
    assert_eq!(serve(&mut writer, [end(9)]), [FULL]);
    assert_eq!(ended_sessions.try_iter().count(), 0);
    assert_eq!(serve(&mut writer, [lookup("ada", 2)]), [found(1)]);
}

#[test]
fn batch_that_does_not_fit_loses_its_acquires() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = small_writer(directory.path(), NODE);
    serve(&mut writer, [acquire("ada", 1), acquire("bob", 2)]);
    let many = (0..5000).map(|number| acquire(&format!("{number:0>250}"), number));
    let mut outcomes = serve(&mut writer, many.chain([release("ada", 1), lookup("bob", 2)]));
    assert_eq!(outcomes.split_off(5000), [RELEASED, found(1)]);
    assert_eq!(outcomes, vec![FULL; 5000]);
    assert_eq!(bytes(&mut writer, "ada"), None);

    // The same if only the commit finds that it does not fit.
    let full_map = heed::Error::Mdb(heed::MdbError::MapFull);
    faults::fail([Uncommitted::NotApplied(full_map)]);
    assert_eq!(serve(&mut writer, [acquire("ada", 3), release("bob", 2)]), [FULL, RELEASED]);
    assert_eq!(bytes(&mut writer, "bob"), None);
}

#[test]
fn full_disk_applies_releases_by_halves() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    let users = ["ada", "bob", "eve", "joe"];
    serve(&mut writer, users.map(|user| acquire(user, 1)));
    serve(&mut writer, [acquire("zoe", 1)]);
    // These fail: all, all without acquires, the first half. These fit: the second half, and each of the first alone.
    let full = || Uncommitted::NotApplied(heed::Error::Io(ErrorKind::StorageFull.into()));
    faults::fail([full(), full(), full()]);
    let asked = [release("ada", 1), acquire("new", 2), release("bob", 1), release("eve", 1), release("joe", 1)];
    assert_eq!(serve(&mut writer, asked), [RELEASED, FULL, RELEASED, RELEASED, RELEASED]);
    assert_eq!(users.map(|user| bytes(&mut writer, user)), [const { None }; 4]);
    assert!(!writer.ballast_file.exists());
    // A release that does not fit alone is retried by its session.
    faults::fail([full(), full()]);
    assert_eq!(serve(&mut writer, [release("zoe", 1)]), [FULL]);
    assert_eq!(serve(&mut writer, [release("zoe", 1)]), [RELEASED]);
}

#[test]
fn broken_environment_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    serve(&mut writer, [acquire("ada", 1)]);
    writer.live.break_down();
    assert_eq!(serve(&mut writer, [acquire("ada", 2), acquire("ada", 3)]), [granted(2), Outcome::Denied(None)]);
}

#[test]
fn closed_environment_rejects_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    serve(&mut writer, [acquire("ada", 1)]);
    writer.live.break_down();
    let (data, aside) = (directory.path().join("live").join(DATA_FILE), directory.path().join("aside"));
    std::fs::rename(&data, &aside).unwrap();
    assert_eq!(serve(&mut writer, [acquire("ada", 2), release("ada", 1), lookup("ada", 1)]), vec![FAILED; 3]);
    std::fs::rename(&aside, &data).unwrap();
    writer.live.break_down();
    assert_eq!(serve(&mut writer, [lookup("ada", 1)]), [found(1)]);
}

#[test]
fn failures_are_logged() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    assert_eq!(logged(|| drop(serve(&mut writer, [acquire("ada", 1)]))), "");
    fail_next_commit();
    let lines = logged(|| drop(serve(&mut writer, [acquire("ada", 2)])));
    assert!(lines.contains("ERROR") && lines.contains("a commit failed"), "{lines}");
}

#[test]
fn failing_disk_is_not_called_full() {
    /// EIO, which LMDB also reports if only part of a write fits.
    const EIO: i32 = 5;

    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [granted(1)]);
    let failure = || Uncommitted::NotApplied(heed::Error::Io(std::io::Error::from_raw_os_error(EIO)));
    faults::fail([failure()]);
    let lines = logged(|| {
        let outcomes = serve(&mut writer, [acquire("bob", 2), release("ada", 1)]);
        assert_eq!(outcomes, [FAILED, RELEASED], "the release is applied by itself");
    });
    let expected = "event=\"batch_failed\" reason=\"The session store is not available, try again later\"";
    assert!(lines.contains(expected), "{lines}");
    assert!(writer.ballast_file.exists(), "its room would not help");
    assert_eq!(serve(&mut writer, [acquire("bob", 2)]), [granted(1)]);
}

#[test]
fn store_that_is_opened_again_and_again_has_two_lines_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    let lines = logged(|| {
        for number in 0..20 {
            fail_next_commit();
            assert_eq!(serve(&mut writer, [acquire("ada", number)]), [UNKNOWN]);
        }
    });
    for event in ["commit_in_doubt", "store_closed", "store_reopened"] {
        let count = lines.matches(&format!("event=\"{event}\"")).count();
        assert!((1..=2).contains(&count), "{count} times {event}: {lines}");
    }
    assert!(lines.find("store_closed") < lines.find("store_reopened"), "the cause comes first: {lines}");
}

fn long_name(number: u64) -> String {
    format!("{number:0>200}")
}

fn file_pages(writer: &mut Writer) -> usize {
    writer.live.environment().unwrap().file_pages()
}

#[test]
fn map_grows_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = mapped_writer(directory.path(), NODE);
    assert_eq!(file_pages(&mut writer), 256);
    let lines = logged(|| {
        for first in (0..30_000).step_by(1000) {
            let outcomes = serve(&mut writer, (first..first + 1000).map(|number| acquire(&long_name(number), number)));
            assert_eq!(outcomes, vec![granted(1); 1000]);
        }
    });
    assert_eq!(lines, "", "nothing was opened again or rejected");
    assert!(file_pages(&mut writer) >= 8 * 256);
    for first in (0..30_000).step_by(1000) {
        let outcomes = serve(&mut writer, (first..first + 1000).map(|number| lookup(&long_name(number), 0)));
        assert_eq!(outcomes, vec![found(1); 1000]);
    }
}

/// Acquires in batches as large as the writer takes them, until one is full. How many were granted.
fn acquire_until_full(writer: &mut Writer, first: u64) -> u64 {
    let mut next = first;
    loop {
        let batch = u64::try_from(writer.batch).unwrap();
        let outcomes = serve(writer, (next..next + batch).map(|number| acquire(&long_name(number), number)));
        let count = outcomes.iter().take_while(|outcome| **outcome == granted(1)).count();
        assert!(outcomes[count..].iter().all(|outcome| *outcome == FULL), "{outcomes:?}");
        next += count as u64;
        if count < outcomes.len() {
            return next;
        }
    }
}

#[test]
fn map_that_cannot_grow_is_full_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = mapped_writer(directory.path(), NODE);
    fail_allocations(usize::MAX);
    // Twice: the second time every page was in use before.
    for _ in 0..2 {
        // The first batch that does not fit is large, and the map is full from then on. So are small ones later.
        let mut held = acquire_until_full(&mut writer, 0);
        held = acquire_until_full(&mut writer, held);
        assert!(held > 500 && writer.health().is_full, "{held}");
        assert_eq!(file_pages(&mut writer), 256);
        // In an order that touches another page each time.
        for number in (0..held).map(|number| number * 769 % held) {
            assert_eq!(serve(&mut writer, [release(&long_name(number), number)]), [RELEASED]);
        }
        assert!(!writer.health().is_full);
    }
    let held = acquire_until_full(&mut writer, 0);
    let held = acquire_until_full(&mut writer, held);
    writer.live.hurry_growth();
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [FULL], "the disk still has no room");
    fail_allocations(0);
    writer.live.hurry_growth();
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [granted(1)]);
    assert!(file_pages(&mut writer) == 512 && writer.batch > 60, "{} commands at once", writer.batch);
    let outcomes = serve(&mut writer, (0..held).map(|number| lookup(&long_name(number), 0)));
    assert_eq!(outcomes, vec![found(1); usize::try_from(held).unwrap()]);
}
