//! How the shared store writes what requests and answers name.
//!
//! ```text
//! generation    NODE-BEAT                          NODE: 16 hexadecimal digits, BEAT: decimal digits
//! version       GENERATION NUMBER STAMP            20 decimal digits each, together: they compare as texts
//! node          B BEAT | D MILLISECONDS | L        beats, dead since, or has left
//! record        STAMP | lingers | nodes (2) | NODE... | UserRecord
//! inbox member  SESSION (16) | user
//! message       c | user                           the record of this user has changed
//!               s | SESSION (16) | t or c          a hint for this session: its turn has come, or its list has changed
//! ```
//!
//! Numbers in bytes are big-endian. Stamps and nodes have 8 bytes.

use std::str::from_utf8;
use std::time::Duration;

use session_core::cluster::{Generation, GenerationId, HistoryId, NodeEntry, OverridesVersion, Published, Stamp};
use session_core::ledger::{Hint, RecordError, SessionHint, UserRecord};
use session_core::{NodeId, SessionId, Timestamp, UserId};

/// The digits of the version of a bucket that has never had overrides, and of a floor that holds nobody back.
const WIDTH: usize = 20;

/// 16 hexadecimal digits. Each sign-in writes some, so they are not left to `format!`.
pub(super) fn node(node: NodeId) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    let (pairs, _) = text.as_chunks_mut();
    for ([high, low], byte) in pairs.iter_mut().zip(node.bits().to_be_bytes()) {
        (*high, *low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]);
    }
    text
}

pub(super) fn parse_node(text: &[u8]) -> Option<NodeId> {
    let digits = from_utf8(text).ok().filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(NodeId::new)
}

pub(super) fn generation_id(id: GenerationId) -> Vec<u8> {
    [&node(id.node), &b"-"[..], id.beat.to_string().as_bytes()].concat()
}

pub(super) fn parse_generation_id(text: &[u8]) -> Option<GenerationId> {
    let (of, beat) = from_utf8(text).ok()?.split_once('-')?;
    Some(GenerationId { node: parse_node(of.as_bytes())?, beat: beat.parse().ok()? })
}

pub(super) fn parse_generation(text: &[u8]) -> Option<Generation> {
    let mut parts = from_utf8(text).ok()?.split(' ');
    let id = parse_generation_id(parts.next()?.as_bytes())?;
    let history = parse_history(parts.next()?)?;
    let number = parts.next()?.parse().ok()?;
    let is_open = match parts.next()? {
        "open" => true,
        "closed" => false,
        _ => return None,
    };
    Some(Generation { id, history, number, is_open })
}

/// 40 hexadecimal digits.
pub(super) fn parse_history(digits: &str) -> Option<HistoryId> {
    let mut id = [0; 20];
    if digits.len() != 40 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in id.iter_mut().zip((0..40).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(HistoryId(id))
}

pub(super) fn number(mut number: u64) -> [u8; WIDTH] {
    let mut text = [0; WIDTH];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

pub(super) fn version(version: OverridesVersion) -> Vec<u8> {
    let OverridesVersion { generation, number: of_change, stamp } = version;
    [number(generation), number(of_change), number(stamp.0)].concat()
}

pub(super) fn parse_version(text: &[u8]) -> Option<OverridesVersion> {
    let (parts, []) = text.as_chunks::<WIDTH>() else { return None };
    let &[generation, number, stamp] = parts else { return None };
    let number_of = |digits: [u8; WIDTH]| from_utf8(&digits).ok()?.parse().ok();
    Some(OverridesVersion {
        generation: number_of(generation)?,
        number: number_of(number)?,
        stamp: Stamp(number_of(stamp)?),
    })
}

pub(super) fn parse_entry(text: &[u8]) -> Option<NodeEntry> {
    let (kind, rest) = from_utf8(text).ok()?.split_at_checked(1)?;
    match kind {
        "B" => rest.parse().ok().map(NodeEntry::Beats),
        "D" => rest.parse().ok().map(|millis| NodeEntry::Dead(Timestamp::from_epoch(Duration::from_millis(millis)))),
        "L" if rest.is_empty() => Some(NodeEntry::Left),
        _ => None,
    }
}

pub(super) fn record(stamp: Stamp, record: &UserRecord) -> Vec<u8> {
    let mut nodes: Vec<_> = record.connected_nodes().collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut encoded = Vec::new();
    record.encode(&mut encoded);
    let mut bytes = Vec::with_capacity(11 + 8 * nodes.len() + encoded.len());
    bytes.extend_from_slice(&stamp.0.to_be_bytes());
    bytes.push(record.has_lingering().into());
    bytes.extend_from_slice(&u16::try_from(nodes.len()).unwrap_or(u16::MAX).to_be_bytes());
    nodes.iter().for_each(|node| bytes.extend_from_slice(&node.bits().to_be_bytes()));
    bytes.extend_from_slice(&encoded);
    bytes
}

/// The record of these bytes. `Err(None)` if they are too short for one.
pub(super) fn parse_record(bytes: &[u8]) -> Result<(Stamp, UserRecord), Option<RecordError>> {
    let (stamp, rest) = bytes.split_first_chunk().ok_or(None)?;
    let (&[_, high, low], rest) = rest.split_first_chunk().ok_or(None)?;
    let nodes = usize::from(u16::from_be_bytes([high, low]));
    let record = rest.get(8 * nodes..).ok_or(None)?;
    Ok((Stamp(u64::from_be_bytes(*stamp)), UserRecord::decode(record)?))
}

pub(super) fn parse_user(bytes: &[u8]) -> Option<UserId> {
    UserId::parse(from_utf8(bytes).ok()?).ok()
}

pub(super) fn inbox_member(session: SessionId, user: &UserId) -> Vec<u8> {
    [&session.to_bytes()[..], user.as_str().as_bytes()].concat()
}

pub(super) fn parse_inbox_member(bytes: &[u8]) -> Option<(UserId, SessionId)> {
    let (session, user) = bytes.split_first_chunk()?;
    Some((parse_user(user)?, SessionId::from_bytes(*session)))
}

pub(super) fn changed(user: &UserId) -> Vec<u8> {
    [b"c", user.as_str().as_bytes()].concat()
}

pub(super) fn hint(hint: SessionHint) -> Vec<u8> {
    let kind = match hint.hint {
        Hint::Turn => b"t",
        Hint::Changed => b"c",
    };
    [b"s", &hint.session.to_bytes()[..], kind].concat()
}

/// A message on the channel of this node.
pub(super) fn parse_message(node: NodeId, bytes: &[u8]) -> Option<Published> {
    match bytes.split_first()? {
        (b'c', user) => Some(Published::Changed(node, parse_user(user)?)),
        (b's', rest) => {
            let (session, kind) = rest.split_first_chunk()?;
            let hint = match kind {
                b"t" => Hint::Turn,
                b"c" => Hint::Changed,
                _ => return None,
            };
            Some(Published::Session(SessionHint { session: SessionId::from_bytes(*session), hint }))
        }
        _ => None,
    }
}
