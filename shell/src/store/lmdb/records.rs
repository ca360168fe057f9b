//! Where the records of `live/` lie: small ones in one value, large ones in a value for each session.
//!
//! ```text
//! USER                   a record, or for one that is split: 00 | number of its parts (2 bytes)
//! USER 00 SESSION        a part of a split record: place (8 bytes) | a record of this session alone, which has a slot or waits
//! ```
//!
//! LMDB puts a value of more than half a page into pages of its own, which must lie side by side, and writes all of them
//! again for every change. A record of a thousand sessions takes fifty. In a map or on a disk that is nearly full the free
//! pages lie scattered, so such a record could not even become smaller, and none of its slots free. So a record that
//! outgrows [`MAX_WHOLE_BYTES`] is split for as long as it exists. Then each change writes a few pages anywhere, and what is
//! kept free for releases suffices for them, however many sessions a user has.
//!
//! A user id has no control characters. So no other user's key lies between those of one user. Places ascend in the order of
//! the record, with gaps. Numbers are big-endian.

use std::collections::BTreeMap;
use std::ops::Bound;

use heed::{RoTxn, RwTxn};
use session_core::SessionId;
use session_core::ledger::{RecordError, SessionRecord, UserRecord, WaitingSession};

use super::environment::Environment;

/// The longest record that is kept in one value. With the longest key it fits into half of the smallest page, 4096 bytes.
const MAX_WHOLE_BYTES: usize = 1600;

/// The first byte of the value of a split record. No version of a record's encoding has it.
const SPLIT: u8 = 0;

/// A record as it lies in the store.
#[derive(Debug, Default)]
pub(super) struct StoredRecord {
    pub(super) record: UserRecord,
    /// The place of each session, in the order of the record, if the record is split.
    places: Option<Vec<u64>>,
}

/// A record, or why it cannot be read.
pub(super) type ReadRecord = Result<StoredRecord, RecordError>;

/// Reads the record of this user, which is empty if there is none.
pub(super) fn read(environment: &Environment, txn: &RoTxn<'_>, user: &[u8]) -> heed::Result<ReadRecord> {
    match environment.records.get(txn, user)? {
        None => Ok(Ok(StoredRecord::default())),
        Some(value) => read_value(environment, txn, user, value),
    }
}

/// The next record, with its user's key. `None` if there is no further one.
pub(super) fn next(
    environment: &Environment,
    txn: &RoTxn<'_>,
    from: &Position,
) -> heed::Result<Option<(Vec<u8>, ReadRecord)>> {
    let range = (from.0.as_ref().map(Vec::as_slice), Bound::Unbounded);
    let Some(entry) = environment.records.range(txn, &range)?.next() else { return Ok(None) };
    let (key, value) = entry?;
    Ok(Some((key.to_vec(), read_value(environment, txn, key, value)?)))
}

/// Where to read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position(Bound<Vec<u8>>);

impl Position {
    /// At the first user.
    pub(super) const fn first() -> Self {
        Self(Bound::Unbounded)
    }

    /// At this user, or the next one.
    pub(super) fn at(user: &[u8]) -> Self {
        Self(Bound::Included(user.to_vec()))
    }

    /// Behind this user.
    pub(super) fn behind(user: &[u8]) -> Self {
        Self(Bound::Excluded(end_of(user)))
    }
}

/// Writes the record in place of the one that was read. `bytes` is room to work in.
pub(super) fn write(
    environment: &Environment,
    txn: &mut RwTxn<'_>,
    user: &[u8],
    before: &StoredRecord,
    now: &UserRecord,
    bytes: &mut Vec<u8>,
) -> heed::Result<()> {
    let records = &environment.records;
    if now.is_empty() {
        return match before.places {
            Some(_) => remove(environment, txn, user),
            None => records.delete(txn, user).map(drop),
        };
    }
    now.encode(bytes);
    if before.places.is_none() && bytes.len() <= MAX_WHOLE_BYTES {
        return records.put(txn, user, bytes);
    }
    let places = before.places.iter().flatten().copied();
    let mut left: BTreeMap<_, _> =
        parts_of(&before.record).zip(places).map(|(was, place)| (was.session(), (was, place))).collect();
    let (mut last, mut number) = (0, 0_u16);
    for part in parts_of(now) {
        let was = left.remove(&part.session()).filter(|&(_, place)| place > last);
        // A new part follows the one before it. What lay between them is gone from the record, so the place is free.
        last = was.map_or(last + 1, |(_, place)| place);
        number += 1;
        if was.is_none_or(|(was, _)| was != part) {
            encode_part(part, last, bytes);
            records.put(txn, &key_of(user, part.session()), bytes)?;
        }
    }
    for &session in left.keys() {
        records.delete(txn, &key_of(user, session))?;
    }
    let [high, low] = number.to_be_bytes();
    records.put(txn, user, &[SPLIT, high, low])
}

/// Removes the record of this user, also one that cannot be read.
pub(super) fn remove(environment: &Environment, txn: &mut RwTxn<'_>, user: &[u8]) -> heed::Result<()> {
    let end = end_of(user);
    let range = (Bound::Included(user), Bound::Excluded(&*end));
    environment.records.delete_range(txn, &range).map(drop)
}

fn read_value(environment: &Environment, txn: &RoTxn<'_>, user: &[u8], value: &[u8]) -> heed::Result<ReadRecord> {
    let &[SPLIT, high, low] = value else {
        return Ok(UserRecord::decode(value).map(|record| StoredRecord { record, places: None }));
    };
    let parts = (Bound::Excluded(user), Bound::Excluded(&*end_of(user)));
    let mut found = Vec::new();
    for entry in environment.records.range(txn, &parts)? {
        let (key, value) = entry?;
        match decode_part(&key[user.len()..], value) {
            Ok(part) => found.push(part),
            Err(error) => return Ok(Err(error)),
        }
    }
    if found.len() != usize::from(u16::from_be_bytes([high, low])) {
        return Ok(Err(RecordError::CutOff));
    }
    found.sort_unstable_by_key(|&(place, _)| place);
    let (mut places, mut sessions, mut waiting) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
    for (place, part) in found {
        places.push(place);
        waiting.extend_from_slice(part.waiting());
        sessions.extend(part.into_sessions());
    }
    let record = UserRecord::from_sessions(sessions).and_then(|record| record.with_waiting(waiting));
    Ok(record.map(|record| StoredRecord { record, places: Some(places) }))
}

/// A part of a split record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Holder(&'a SessionRecord),
    Waiter(&'a WaitingSession),
}

/// The parts of a record, in the order of their places: those who have a slot, then those who wait.
fn parts_of(record: &UserRecord) -> impl Iterator<Item = Part<'_>> {
    record.sessions().iter().map(Part::Holder).chain(record.waiting().iter().map(Part::Waiter))
}

impl Part<'_> {
    const fn session(self) -> SessionId {
        match self {
            Self::Holder(holder) => holder.session,
            Self::Waiter(waiter) => waiter.session,
        }
    }

    fn alone(self) -> Result<UserRecord, RecordError> {
        match self {
            Self::Holder(holder) => UserRecord::from_sessions(vec![holder.clone()]),
            Self::Waiter(waiter) => UserRecord::default().with_waiting(vec![waiter.clone()]),
        }
    }
}

/// The key of a part of a split record.
fn key_of(user: &[u8], session: SessionId) -> Vec<u8> {
    [user, &[0], &session.to_bytes()].concat()
}

/// A key behind all those of this user, and before those of the next.
fn end_of(user: &[u8]) -> Vec<u8> {
    [user, &[1]].concat()
}

fn encode_part(part: Part<'_>, place: u64, bytes: &mut Vec<u8>) {
    part.alone().expect("one session is not too many").encode(bytes);
    bytes.splice(..0, place.to_be_bytes());
}

fn decode_part(key: &[u8], value: &[u8]) -> Result<(u64, UserRecord), RecordError> {
    let (place, record) = value.split_first_chunk().ok_or(RecordError::CutOff)?;
    let record = UserRecord::decode(record)?;
    let mut parts = parts_of(&record);
    match (parts.next().map(Part::session), parts.next()) {
        (Some(session), None) if key.split_first() == Some((&0, &session.to_bytes()[..])) => {
            drop(parts);
            Ok((u64::from_be_bytes(*place), record))
        }
        _ => Err(RecordError::BadSession),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use session_core::Timestamp;

    use super::super::environment::Durability;
    use super::super::testing::NODE;
    use super::*;

    fn environment() -> (tempfile::TempDir, Environment) {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
        (directory, environment)
    }

    fn record(numbers: impl IntoIterator<Item = u64>) -> UserRecord {
        let session = |number| SessionRecord::new(NODE.session(number), Timestamp::default());
        UserRecord::from_sessions(numbers.into_iter().map(session).collect()).unwrap()
    }

    fn read(environment: &Environment, user: &str) -> ReadRecord {
        super::read(environment, &environment.write().unwrap(), user.as_bytes()).unwrap()
    }

    /// Replaces the record, and returns how many keys there are then.
    fn write(environment: &Environment, user: &str, now: &UserRecord) -> usize {
        let before = read(environment, user).unwrap();
        let mut txn = environment.write().unwrap();
        super::write(environment, &mut txn, user.as_bytes(), &before, now, &mut Vec::new()).unwrap();
        environment.commit(txn).unwrap();
        assert_eq!(&read(environment, user).unwrap().record, now);
        environment.entries()
    }

    #[test]
    fn large_record_is_split_until_it_is_empty() {
        let (_directory, environment) = environment();
        let small = u64::try_from(MAX_WHOLE_BYTES / 25).unwrap();
        assert_eq!(write(&environment, "ada", &record(0..small - 1)), 1);
        assert_eq!(write(&environment, "ada", &record(0..1000)), 1001);
        assert_eq!(write(&environment, "ada", &record(990..1024)), 35);
        assert_eq!(write(&environment, "ada", &record([7])), 2);
        assert_eq!(write(&environment, "ada", &record([])), 0);
        assert_eq!(write(&environment, "ada", &record([7])), 1);
    }

    #[test]
    fn every_change_keeps_the_order() {
        let (_directory, environment) = environment();
        let mut numbers: Vec<u64> = (0..200).collect();
        write(&environment, "ada", &record(numbers.clone()));
        let mut random = fastrand::Rng::with_seed(1);
        for new in 1000..1500 {
            let at = random.usize(..numbers.len());
            match random.u8(..5) {
                0 => drop(numbers.remove(at)),
                1 => numbers[at] = new,
                2 => numbers.push(new),
                // Such as no rule does.
                3 => numbers.insert(at, new),
                _ => numbers.swap(at, 0),
            }
            write(&environment, "ada", &record(numbers.clone()));
        }
    }

    /// Sessions wait in line, leave it and get slots, while the record is split and before.
    #[test]
    fn every_change_keeps_the_line() {
        let (_directory, environment) = environment();
        let waiting = |number: u64| WaitingSession {
            session: NODE.session(number),
            since: Timestamp::from_epoch(Duration::from_secs(number)),
            claim: None,
            device: None,
            spares_lingering: number.is_multiple_of(2),
        };
        let (mut holders, mut line): (Vec<u64>, Vec<u64>) = ((0..3).collect(), Vec::new());
        let mut random = fastrand::Rng::with_seed(2);
        for new in 1000..2000 {
            match random.u8(..8) {
                // More come than go, so the record outgrows one value.
                0..3 => holders.push(new),
                3 | 4 if line.len() < UserRecord::MAX_WAITING => line.push(new),
                5 if !line.is_empty() => holders.push(line.remove(0)),
                6 if !line.is_empty() => drop(line.remove(random.usize(..line.len()))),
                _ => drop(holders.remove(random.usize(..holders.len()))),
            }
            let record = record(holders.clone());
            let record = record.with_waiting(line.iter().copied().map(waiting).collect()).unwrap();
            write(&environment, "ada", &record);
        }
        assert!(holders.len() + line.len() > MAX_WHOLE_BYTES / 25, "it was never split");
        for number in line.split_off(1) {
            write(&environment, "ada", &record([]).with_waiting(vec![waiting(number)]).unwrap());
        }
        assert_eq!(write(&environment, "ada", &record([])), 0);
    }

    #[test]
    fn changed_session_is_written() {
        let (_directory, environment) = environment();
        write(&environment, "ada", &record(0..200));
        let mut sessions = record(0..200).sessions().to_vec();
        sessions[100].since = Timestamp::from_epoch(Duration::from_secs(9));
        write(&environment, "ada", &UserRecord::from_sessions(sessions).unwrap());
    }

    #[test]
    fn release_of_a_split_record_changes_few_pages() {
        let (_directory, environment) = environment();
        write(&environment, "ada", &record(0..1000));
        let before = environment.file_pages();
        for number in 1..100 {
            write(&environment, "ada", &record(number..1000));
        }
        // Those of a change are free for the next but one.
        assert!(environment.file_pages() - before < 30, "{} pages", environment.file_pages() - before);
    }

    #[test]
    fn records_are_read_user_by_user() {
        let (_directory, environment) = environment();
        let records = [("ada", 3), ("ada b", 300), ("ada!", 1), ("adam", 400), ("bob", 2)];
        for (user, number) in records {
            write(&environment, user, &record(0..number));
        }
        let txn = environment.write().unwrap();
        let read = |mut position, max| {
            let mut found = Vec::new();
            while found.len() < max
                && let Some((key, record)) = next(&environment, &txn, &position).unwrap()
            {
                position = Position::behind(&key);
                let number = u64::try_from(record.unwrap().record.sessions().len()).unwrap();
                found.push((String::from_utf8(key).unwrap(), number));
            }
            found
        };
        let expected = records.map(|(user, number)| (user.to_owned(), number));
        assert_eq!(read(Position::first(), 9), expected);
        assert_eq!(read(Position::first(), 2), expected[..2]);
        assert_eq!(read(Position::behind(b"ada b"), 9), expected[2..]);
        assert_eq!(read(Position::at(b"ada b"), 2), expected[1..3]);
        assert_eq!(read(Position::behind(b"bob"), 9), []);
    }

    #[test]
    fn damaged_split_record_is_not_read() {
        for damage in 0..4 {
            let (_directory, environment) = environment();
            write(&environment, "ada", &record(0..200));
            let mut txn = environment.write().unwrap();
            let (records, key) = (&environment.records, key_of(b"ada", NODE.session(7)));
            match damage {
                0 => assert!(records.delete(&mut txn, &key).unwrap()),
                1 => records.put(&mut txn, &key, &[1; 7]).unwrap(),
                2 => records.put(&mut txn, &[&*key, b"x"].concat(), &[1; 40]).unwrap(),
                _ => records.put(&mut txn, b"ada", &[SPLIT, 0, 199]).unwrap(),
            }
            environment.commit(txn).unwrap();
            assert!(read(&environment, "ada").is_err(), "damage {damage}");
            let mut txn = environment.write().unwrap();
            remove(&environment, &mut txn, b"ada").unwrap();
            environment.commit(txn).unwrap();
            assert_eq!(environment.entries(), 0, "nothing of it is left");
        }
    }
}
