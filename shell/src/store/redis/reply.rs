//! Reads the answers of the shared store.

use redis::Value;
use session_core::UserId;
use session_core::cluster::{
    AnswerBody, BeatAnswer, GenerationId, HistoryId, OverridesAnswer, OverridesVersion, PageAnswer, RecordAnswer,
    ScanPosition, StoredRecord,
};
use session_core::ledger::{RecordError, StoreError};
use thiserror::Error;

use super::command::Expected;
use super::value;
use crate::store::overrides_bytes::{self, OverridesError};

/// Why an answer cannot be read.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum ReplyError {
    /// The keys hold something that this software does not write.
    #[error("the answer of the store makes no sense")]
    Malformed,
    /// The record of a user.
    #[error("the record of a user cannot be read: {0}")]
    Record(#[from] RecordError),
    /// The overrides of a user.
    #[error("the overrides of a user cannot be read: {0}")]
    Overrides(#[from] OverridesError),
}

/// What the server says of its history in its answer to INFO. `None` if it is a replica: what that has may be old.
pub(super) fn parse_history(info: &Value) -> Option<HistoryId> {
    let text = std::str::from_utf8(bytes(info)?).ok()?;
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if of("role")? != "master" {
        return None;
    }
    value::parse_history(of("master_replid")?.trim())
}

/// The answer to a request. Records that cannot be read are left out of a page, and fail any other request. Names their users.
pub(super) fn parse(
    expected: Expected,
    reply: &Value,
    unreadable: &mut Vec<(UserId, ReplyError)>,
) -> Result<AnswerBody, ReplyError> {
    Ok(match expected {
        Expected::Beat => AnswerBody::Beat(Box::new(beat(reply)?)),
        Expected::Done => AnswerBody::Done(integer(reply)? != 0),
        Expected::Written(user, generation, record) if bytes(reply).is_some() => {
            let generation = Some(generation);
            let answer =
                version(reply).map(|overrides| RecordAnswer { generation, overrides, is_written: true, record });
            of_user(user, answer, unreadable)
        }
        Expected::Record(user) | Expected::Written(user, ..) => of_user(user, record(reply), unreadable),
        Expected::Page => AnswerBody::Page(Box::new(page(reply, unreadable)?)),
        Expected::Overrides => AnswerBody::Overrides(Box::new(overrides(reply)?)),
    })
}

fn of_user(
    user: UserId,
    answer: Result<RecordAnswer, ReplyError>,
    unreadable: &mut Vec<(UserId, ReplyError)>,
) -> AnswerBody {
    match answer {
        Ok(answer) => AnswerBody::Record(Box::new(answer)),
        Err(error) => {
            unreadable.push((user, error));
            AnswerBody::Failed(StoreError::Failed)
        }
    }
}

fn beat(reply: &Value) -> Result<BeatAnswer, ReplyError> {
    let [is_confirmed, version_now, all, inbox] = array(reply)? else { return Err(ReplyError::Malformed) };
    let (mut generation, mut nodes) = (None, Vec::new());
    for (name, text) in pairs(all)? {
        if name == b"generation" {
            generation = value::parse_generation(text);
        } else {
            let node = value::parse_node(name).ok_or(ReplyError::Malformed)?;
            nodes.push((node, value::parse_entry(text).ok_or(ReplyError::Malformed)?));
        }
    }
    nodes.sort_unstable_by_key(|(node, _)| *node);
    let inbox = array(inbox)?.iter().map(|member| value::parse_inbox_member(bytes(member)?));
    Ok(BeatAnswer {
        is_confirmed: integer(is_confirmed)? != 0,
        generation: generation.ok_or(ReplyError::Malformed)?,
        overrides: version(version_now)?,
        nodes,
        inbox: inbox.collect::<Option<_>>().ok_or(ReplyError::Malformed)?,
    })
}

fn record(reply: &Value) -> Result<RecordAnswer, ReplyError> {
    let [generation, overrides, record] = array(reply)? else { return Err(ReplyError::Malformed) };
    Ok(RecordAnswer {
        generation: generation_id(generation)?,
        overrides: version(overrides)?,
        is_written: false,
        record: stored(record)?,
    })
}

fn page(reply: &Value, unreadable: &mut Vec<(UserId, ReplyError)>) -> Result<PageAnswer, ReplyError> {
    let [generation, next, records] = array(reply)? else { return Err(ReplyError::Malformed) };
    let next =
        bytes(next).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).ok_or(ReplyError::Malformed)?;
    let mut page = PageAnswer {
        generation: generation_id(generation)?,
        records: Vec::new(),
        next: (next != 0).then_some(ScanPosition(next)),
    };
    for (name, bytes) in pairs(records)? {
        // What is no user's name is nobody's record.
        let Ok(user) = user(name) else { continue };
        match value::parse_record(bytes) {
            Ok((stamp, record)) => page.records.push((user, stamp, record)),
            Err(error) => unreadable.push((user, cannot_be_read(error))),
        }
    }
    Ok(page)
}

fn overrides(reply: &Value) -> Result<OverridesAnswer, ReplyError> {
    let [is_written, generation, version_now, all] = array(reply)? else { return Err(ReplyError::Malformed) };
    let mut answer = OverridesAnswer {
        generation: generation_id(generation)?,
        is_written: integer(is_written)? != 0,
        version: version(version_now)?,
        all: Vec::new(),
    };
    for (name, bytes) in pairs(all)? {
        answer.all.push((user(name)?, overrides_bytes::decode(bytes)?));
    }
    answer.all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(answer)
}

fn stored(reply: &Value) -> Result<StoredRecord, ReplyError> {
    bytes(reply).map(|bytes| value::parse_record(bytes).map_err(cannot_be_read)).transpose()
}

fn cannot_be_read(error: Option<RecordError>) -> ReplyError {
    error.map_or(ReplyError::Malformed, ReplyError::Record)
}

fn user(name: &[u8]) -> Result<UserId, ReplyError> {
    value::parse_user(name).ok_or(ReplyError::Malformed)
}

fn generation_id(reply: &Value) -> Result<Option<GenerationId>, ReplyError> {
    bytes(reply).map(|text| value::parse_generation_id(text).ok_or(ReplyError::Malformed)).transpose()
}

fn version(reply: &Value) -> Result<OverridesVersion, ReplyError> {
    let Some(text) = bytes(reply) else { return Ok(OverridesVersion::default()) };
    value::parse_version(text).ok_or(ReplyError::Malformed)
}

/// `None` if there is nothing. That the value is of another kind is found by whoever needs it.
pub(super) fn bytes(reply: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = reply { Some(bytes) } else { None }
}

fn integer(reply: &Value) -> Result<i64, ReplyError> {
    if let Value::Int(number) = reply { Ok(*number) } else { Err(ReplyError::Malformed) }
}

pub(super) fn array(reply: &Value) -> Result<&[Value], ReplyError> {
    if let Value::Array(values) = reply { Ok(values) } else { Err(ReplyError::Malformed) }
}

/// Names and values, in turns.
pub(super) fn pairs(reply: &Value) -> Result<impl Iterator<Item = (&[u8], &[u8])>, ReplyError> {
    let (pairs, []) = array(reply)?.as_chunks() else { return Err(ReplyError::Malformed) };
    let pairs = pairs.iter().map(|[name, value]| bytes(name).zip(bytes(value)));
    let pairs: Option<Vec<_>> = pairs.collect();
    Ok(pairs.ok_or(ReplyError::Malformed)?.into_iter())
}
