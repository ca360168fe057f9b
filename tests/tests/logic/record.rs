//! The encoding of a user's record.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use proptest::prelude::*;
use session_core::SlotId;
use session_core::ledger::{
    ClientInfo, EndReason, LeavingSession, RecordError, Resumable, SessionNames, SessionRecord, SessionStatus,
    UserRecord,
};
use session_core::ledger::{FormerEnd, FormerSlot, SlotLimit, WaitingSession};
use session_core::{DisplayName, NodeId, ResumeKey, SessionId, Timestamp};

const HERE: NodeId = NodeId::new(1);

fn millis(millis: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_millis(millis))
}

fn encoded(entries: Vec<SessionRecord>) -> Vec<u8> {
    // The previous content of the buffer does not matter.
    let mut bytes = vec![9; 500];
    UserRecord::from_sessions(entries).unwrap().encode(&mut bytes);
    bytes
}

/// Decodes the sessions.
fn read(bytes: &[u8]) -> Result<Vec<SessionRecord>, RecordError> {
    UserRecord::decode(bytes).map(|record| record.sessions().to_vec())
}

fn full_entry() -> SessionRecord {
    let client_info = ClientInfo {
        device: DisplayName::parse("laptop"),
        label: DisplayName::parse("Fé"),
        resumable: Some(Resumable {
            key: ResumeKey::from_bytes([0xab; 32]),
            linger: Duration::from_millis(0x0102_0304),
            moved_at: Some(millis(0x018b_cfe5_6802)),
        }),
    };
    SessionRecord {
        session: NodeId::new(0x0123_4567_89ab_cdef).session(0x42),
        slot: SlotId::new(NodeId::new(0xfe).session(0x41)),
        since: millis(0x018b_cfe5_6800),
        claim: SlotLimit::new(0x0203).ok(),
        status: SessionStatus::Lingering { until: millis(0x018b_cfe5_6801) },
        watches: false,
        client: Some(Box::new(client_info)),
    }
}

/// Version 1 is read and no longer written. These bytes are a promise: never change this test.
#[test]
fn version_1_has_these_bytes() {
    #[rustfmt::skip]
    let bytes = [
        0x01,
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,  0, 0, 0, 0, 0, 0, 0, 0x42,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00,
        0, 0, 0, 0, 0, 0, 0, 7,  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let entries = vec![
        SessionRecord::new(NodeId::new(0x0123_4567_89ab_cdef).session(0x42), millis(0x018b_cfe5_6800)),
        SessionRecord::new(NodeId::new(7).session(u64::MAX), Timestamp::default()),
    ];
    assert_eq!(read(&bytes), Ok(entries));
    assert_eq!(read(&[1]), Ok(vec![]));
}

/// Version 2 is read and no longer written. These bytes are a promise: never change this test.
#[test]
fn version_2_has_these_bytes() {
    #[rustfmt::skip]
    let bytes = [
        &[
            0x02,
            0, 0, 0, 0, 0, 0, 0, 7,  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  0, 0, 0, 0, 0, 0, 0, 0,  0,
            0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,  0, 0, 0, 0, 0, 0, 0, 0x42,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0,
            0x0f,
            0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x01,
        ][..],
        &[0xab; 32],
        &[1, 2, 3, 4,  6, b'l', b'a', b'p', b't', b'o', b'p',  3, b'F', 0xc3, 0xa9],
    ].concat();
    let mut full = SessionRecord { claim: None, slot: SlotId::new(full_entry().session), ..full_entry() };
    full.client.as_mut().unwrap().resumable.as_mut().unwrap().moved_at = None;
    let entries = vec![SessionRecord::new(NodeId::new(7).session(u64::MAX), Timestamp::default()), full];
    assert_eq!(read(&bytes), Ok(entries));
    assert_eq!(read(&[2]), Ok(vec![]));
}

/// Version 3 is read and no longer written. These bytes are a promise: never change this test.
#[test]
fn version_3_has_these_bytes() {
    #[rustfmt::skip]
    let bytes = [
        &[
            0x03,
            2,  1, 2, 3, 4, 5, 6, 7, 8,  1,  8, 7, 6, 5, 4, 3, 2, 1,  0,
            0, 0, 0, 0, 0, 0, 0, 7,  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  0, 0, 0, 0, 0, 0, 0, 0,  0,
            0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,  0, 0, 0, 0, 0, 0, 0, 0x42,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0,
            0x7f,
            0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x01,
        ][..],
        &[0xab; 32],
        &[1, 2, 3, 4,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x02],
        &[0, 6, b'l', b'a', b'p', b't', b'o', b'p',  0, 3, b'F', 0xc3, 0xa9],
        &[0, 0, 0, 0, 0, 0, 0, 0xfe,  0, 0, 0, 0, 0, 0, 0, 0x41,  2, 3],
    ].concat();
    let entries = vec![SessionRecord::new(NodeId::new(7).session(u64::MAX), Timestamp::default()), full_entry()];
    let former = [(1, FormerEnd::Taken), (8, FormerEnd::Expired)].map(|(first, end)| {
        let key_prefix = if first == 1 { [1, 2, 3, 4, 5, 6, 7, 8] } else { [8, 7, 6, 5, 4, 3, 2, 1] };
        FormerSlot { key_prefix, end }
    });
    let record = UserRecord::from_sessions(entries).unwrap().with_former(&former);
    assert_eq!(UserRecord::decode(&bytes), Ok(record));
    assert_eq!(read(&[3, 0]), Ok(vec![]));
}

/// Version 4, on disk: these bytes are a promise. Never change this test, add one for the next version.
#[test]
fn version_4_has_these_bytes() {
    #[rustfmt::skip]
    let bytes = [
        &[
            0x04,
            2,  1, 2, 3, 4, 5, 6, 7, 8,  1,  8, 7, 6, 5, 4, 3, 2, 1,  0,
            2,
            0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 9,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 3,
            0x25,  0, 3, b'T', 0xc3, 0xa9,  0, 1,
            0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 8,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 4,  0,
            0, 0, 0, 0, 0, 0, 0, 7,  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  0, 0, 0, 0, 0, 0, 0, 0,  0,
            0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,  0, 0, 0, 0, 0, 0, 0, 0x42,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0,
            0xff,
            0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x01,
        ][..],
        &[0xab; 32],
        &[1, 2, 3, 4,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x02],
        &[0, 6, b'l', b'a', b'p', b't', b'o', b'p',  0, 3, b'F', 0xc3, 0xa9],
        &[0, 0, 0, 0, 0, 0, 0, 0xfe,  0, 0, 0, 0, 0, 0, 0, 0x41,  2, 3],
    ].concat();
    let full = SessionRecord { watches: true, ..full_entry() };
    let entries = vec![SessionRecord::new(NodeId::new(7).session(u64::MAX), Timestamp::default()), full];
    let waiter = |number, since| WaitingSession {
        session: NodeId::new(7).session(number),
        since: millis(since),
        claim: None,
        device: None,
        spares_lingering: false,
    };
    let first = WaitingSession {
        claim: SlotLimit::new(1).ok(),
        device: DisplayName::parse("Té"),
        spares_lingering: true,
        ..waiter(9, 0x018b_cfe5_6803)
    };
    let waiting = vec![first, waiter(8, 0x018b_cfe5_6804)];
    let former = [(1, FormerEnd::Taken), (8, FormerEnd::Expired)].map(|(first, end)| {
        let key_prefix = if first == 1 { [1, 2, 3, 4, 5, 6, 7, 8] } else { [8, 7, 6, 5, 4, 3, 2, 1] };
        FormerSlot { key_prefix, end }
    });
    let record = UserRecord::from_sessions(entries).unwrap().with_former(&former).with_waiting(waiting).unwrap();
    let mut written = Vec::new();
    record.encode(&mut written);
    assert_eq!(written, bytes);
    assert_eq!(UserRecord::decode(&bytes), Ok(record));
    assert_eq!(encoded(vec![]), [4, 0, 0]);
    assert_eq!(read(&[4, 0, 0]), Ok(vec![]));
}

/// Version 5, in a store that several nodes share: these bytes are a promise. Never change this test, add one for the next version.
#[test]
fn version_5_has_these_bytes() {
    #[rustfmt::skip]
    let bytes = [
        0x05,  0,  0,
        0, 9,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 0,  0,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 1,  1,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 2,  2,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 3,  3,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 4,  4,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 5,  5,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 6,  6,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 7,  7,
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 8,  0xc1,  0, 3, b'T', 0xc3, 0xa9,  0, 1, b'x',
        0, 0, 0, 0, 0, 0, 0, 7,  0, 0, 0, 0, 0, 0, 0, 9,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 3,  0,
    ];
    let names = SessionNames::new(DisplayName::parse("Té").as_ref(), DisplayName::parse("x").as_ref());
    let reasons = [
        EndReason::TakenOver(None),
        EndReason::DeviceFull(None),
        EndReason::ByUser(None),
        EndReason::ByOperator,
        EndReason::LimitLowered,
        EndReason::Banned,
        EndReason::Resumed,
        EndReason::Contested,
        EndReason::DeviceFull(names),
    ];
    let leaving = (0..).map(|number| NodeId::new(7).session(number)).zip(reasons);
    let leaving: Vec<_> = leaving.map(|(session, reason)| LeavingSession { session, reason }).collect();
    let stays = SessionRecord::new(NodeId::new(7).session(9), millis(0x018b_cfe5_6803));
    let record = UserRecord::from_sessions(vec![stays]).unwrap().with_leaving(leaving).unwrap();
    let mut written = Vec::new();
    record.encode(&mut written);
    assert_eq!(written, bytes);
    assert_eq!(UserRecord::decode(&bytes), Ok(record));
}

#[test]
fn told_session_is_restored_once_unless_it_leaves() {
    let entry = |number| SessionRecord::new(HERE.session(number), Timestamp::default());
    let left = LeavingSession { session: HERE.session(2), reason: EndReason::ByOperator };
    let mut record = UserRecord::from_sessions(vec![entry(1)]).unwrap().with_leaving(vec![left]).unwrap();
    for number in [1, 2, 3, 3] {
        assert!(record.restore(entry(number)));
    }
    assert_eq!(record.sessions(), [entry(1), entry(3)]);
}

#[test]
fn times_are_stored_in_milliseconds() {
    let entry = |nanos| SessionRecord::new(HERE.session(1), Timestamp::from_epoch(Duration::from_nanos(nanos)));
    assert_eq!(read(&encoded(vec![entry(5_999_999)])), Ok(vec![entry(5_000_000)]));
}

#[test]
fn every_decoding_error() {
    let entry = |number: u64, more: &[u8]| [&HERE.session(number).to_bytes()[..], &[0; 8], more].concat();
    let record = |numbers: &[u64]| [vec![1], numbers.iter().flat_map(|&number| entry(number, &[])).collect()].concat();
    let second = |more: &[u8]| [&[2][..], &entry(1, more)].concat();
    let third = |more: &[u8]| [&[3, 0][..], &entry(1, more)].concat();
    let waiting = |more: &[u8]| [&[4, 0, 1][..], &entry(1, more)].concat();
    let leaving = |reason: &[u8], number: u8, more: &[u8]| {
        [&[5, 0, 0, 0, number][..], &HERE.session(1).to_bytes(), reason, more].concat()
    };
    let numbers: Vec<_> = (0..=4096).collect();
    for (bytes, error, message) in [
        (vec![], RecordError::Empty, "the record is empty"),
        (vec![0], RecordError::Version(0), "the record has version 0, this server reads versions 1 to 5"),
        (vec![6], RecordError::Version(6), "the record has version 6, this server reads versions 1 to 5"),
        // The version is checked first, since an unknown one may have any layout.
        (vec![255; 30], RecordError::Version(255), "the record has version 255, this server reads versions 1 to 5"),
        (vec![1, 0], RecordError::CutOff, "the record is cut off"),
        (vec![3], RecordError::CutOff, "the record is cut off"),
        (vec![3, 1, 0], RecordError::CutOff, "the record is cut off"),
        (vec![3, 9], RecordError::BadSession, "the record has a session that makes no sense"),
        (
            vec![3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            RecordError::BadSession,
            "the record has a session that makes no sense",
        ),
        (third(&[64, 0, 0, 0, 0, 0, 0, 0, 0]), RecordError::BadSession, "the record has a session that makes no sense"),
        (vec![4, 0, 65], RecordError::TooManySessions, "the record has more sessions than any limit allows"),
        (vec![4, 0, 1, 7], RecordError::CutOff, "the record is cut off"),
        (waiting(&[2]), RecordError::BadSession, "the record has a session that makes no sense"),
        (waiting(&[4, 0, 0]), RecordError::BadSession, "the record has a session that makes no sense"),
        (waiting(&[32, 4, 1]), RecordError::BadSession, "the record has a session that makes no sense"),
        ([waiting(&[0]), entry(1, &[0])].concat(), RecordError::DuplicateSession, "the record has one session twice"),
        (leaving(&[], 1, &[]), RecordError::CutOff, "the record is cut off"),
        (leaving(&[8], 1, &[]), RecordError::BadSession, "the record has a session that makes no sense"),
        (leaving(&[67, 0, 1, b'x'], 1, &[]), RecordError::BadSession, "the record has a session that makes no sense"),
        (leaving(&[0], 0, &[0]), RecordError::BadSession, "the record has a session that makes no sense"),
        (leaving(&[0], 1, &entry(1, &[0])), RecordError::DuplicateSession, "the record has one session twice"),
        (third(&[128]), RecordError::BadSession, "the record has a session that makes no sense"),
        (third(&[32, 4, 1]), RecordError::BadSession, "the record has a session that makes no sense"),
        (third(&[4, 0, 0]), RecordError::BadSession, "the record has a session that makes no sense"),
        (third(&[4, 1, 0]), RecordError::CutOff, "the record is cut off"),
        (vec![1; 24], RecordError::CutOff, "the record is cut off"),
        (vec![1; 26], RecordError::CutOff, "the record is cut off"),
        (second(&[]), RecordError::CutOff, "the record is cut off"),
        (second(&[1, 0, 0]), RecordError::CutOff, "the record is cut off"),
        (second(&[4, 2, b'x']), RecordError::CutOff, "the record is cut off"),
        (second(&[16]), RecordError::BadSession, "the record has a session that makes no sense"),
        (second(&[4, 0]), RecordError::BadSession, "the record has a session that makes no sense"),
        (second(&[8, 1, b'\n']), RecordError::BadSession, "the record has a session that makes no sense"),
        (second(&[8, 1, 0xff]), RecordError::BadSession, "the record has a session that makes no sense"),
        (record(&[5, 5]), RecordError::DuplicateSession, "the record has one session twice"),
        (record(&[5, 3, 4, 5]), RecordError::DuplicateSession, "the record has one session twice"),
        (record(&numbers), RecordError::TooManySessions, "the record has more sessions than any limit allows"),
    ] {
        assert_eq!(read(&bytes), Err(error), "{bytes:?}");
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(read(&record(&numbers[1..])).unwrap().len(), UserRecord::MAX_RESTORED);
}

fn name() -> impl Strategy<Value = Option<DisplayName>> {
    prop::option::of("[a-zé🦀 ]{1,64}").prop_map(|name| name.and_then(|name| DisplayName::parse(&name)))
}

fn entry() -> impl Strategy<Value = SessionRecord> {
    let moved_at = prop::option::of(any::<u64>().prop_map(millis));
    let resumable = (any::<[u8; 32]>(), any::<u32>(), moved_at).prop_map(|(key, linger, moved_at)| Resumable {
        key: ResumeKey::from_bytes(key),
        linger: Duration::from_millis(linger.into()),
        moved_at,
    });
    let resumable = prop::option::of(resumable);
    let client_info =
        (name(), name(), resumable).prop_map(|(device, label, resumable)| ClientInfo { device, label, resumable });
    let slot = prop::option::of(any::<u64>());
    let claim = prop::option::of((0..=1024_u32).prop_map(|slots| SlotLimit::new(slots).unwrap()));
    (any::<u64>(), any::<u64>(), slot, any::<u64>(), claim, prop::option::of(any::<u64>()), client_info).prop_map(
        |(node, number, slot, since, claim, until, client_info)| SessionRecord {
            session: NodeId::new(node).session(number),
            slot: SlotId::new(NodeId::new(node).session(slot.unwrap_or(number))),
            since: millis(since),
            claim,
            watches: since % 2 == 1,
            status: until.map_or(SessionStatus::Live, |until| SessionStatus::Lingering { until: millis(until) }),
            client: (client_info != ClientInfo::default()).then(|| Box::new(client_info)),
        },
    )
}

proptest! {
    #[test]
    fn any_record_survives_encoding(entries in prop::collection::vec(entry(), 0..20)) {
        prop_assert_eq!(read(&encoded(entries.clone())), Ok(entries));
    }

    /// A cut between two sessions cannot be detected. A store writes a record completely or not at all.
    #[test]
    fn truncated_record_is_an_error(entries in prop::collection::vec(entry(), 1..5), cut in any::<prop::sample::Index>()) {
        let mut bytes = encoded(entries.clone());
        bytes.truncate(cut.index(bytes.len()));
        match read(&bytes) {
            Ok(read) => prop_assert_eq!(&*read, &entries[..read.len()]),
            Err(error) => prop_assert!(matches!(error, RecordError::CutOff | RecordError::Empty), "{:?}", error),
        }
    }

    #[test]
    fn decoded_record_reencodes_to_itself(bytes in any_record()) {
        if let Ok(entries) = read(&bytes) {
            prop_assert_eq!(read(&encoded(entries.clone())), Ok(entries));
        }
    }
}

/// Random bytes, and bytes that resemble a record. Small numbers, so that a session may come twice.
fn any_record() -> impl Strategy<Value = Vec<u8>> {
    let entries =
        prop::collection::vec((0..2_u8, any::<u64>(), 0..17_u8, prop::collection::vec(any::<u8>(), 0..50)), 0..6);
    let entries = entries.prop_map(|entries| {
        let entry = |(number, since, flags, rest): (u8, u64, u8, Vec<u8>)| {
            [&[0; 15][..], &[number], &since.to_be_bytes(), &[flags], &rest].concat()
        };
        [vec![2], entries.into_iter().flat_map(entry).collect()].concat()
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..100), entries]
}

#[test]
fn session_is_found_by_its_id() {
    let record = UserRecord::from_sessions(vec![full_entry()]).unwrap();
    assert_eq!(record.session(full_entry().session), Some(&full_entry()));
    assert_eq!(record.session(SessionId::from_bytes([0; 16])), None);
    assert_eq!(full_entry().display_name(), DisplayName::parse("Fé").as_ref());
}
