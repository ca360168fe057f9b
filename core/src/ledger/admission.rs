//! Decides who is admitted, and which sessions are evicted for it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::command::{AcquireOptions, Evict};
use super::end::{remove, split_by_status};
use super::end_reason::{EndReason, SessionNames};
use super::lapsed::remove_lapsed_at;
use super::limit::SlotLimit;
use super::line;
use super::outcome::{
    DenyReason, EndedSession, EvictedSession, LinePlace, Liveness, NotResumed, Resumption, SlotUsage,
};
use super::policy::{AdmissionPolicy, CountBy, LimitSource};
use super::record::{ClientInfo, Resumable, SessionRecord, SessionStatus, UserRecord};
use super::room::{Room, find_room, names_gone};
use super::slots::{Slots, evicts_oldest};
use crate::id::{NodeId, ResumeKey, SessionId, SlotId};
use crate::time::Timestamp;

/// A request for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acquire<'a> {
    /// The session that asks.
    pub session: SessionId,
    /// The limit that the user's token claims.
    pub token_limit: Option<SlotLimit>,
    /// What the client asks for beyond a slot.
    pub options: Option<&'a AcquireOptions>,
    /// The time of the request.
    pub at: Timestamp,
}

/// A session was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the evicted sessions have to be told"]
pub struct Grant {
    /// The slots that the user holds now, this one included. At most `limit`, unless the session held its slot before
    /// and the limit was lowered since.
    pub slots: u32,
    /// The limit in force.
    pub limit: SlotLimit,
    /// The grace period of the slot after its session is lost. Zero if it cannot be resumed.
    pub linger: Duration,
    /// The slot.
    pub slot: SlotId,
    /// When the slot was taken, by the clock of the node that did.
    pub since: Timestamp,
    /// What became of the resume token that the client showed.
    pub resume: Resumption,
    /// The live sessions that lost their slots to this one. Each has to be told.
    pub ended: Vec<EndedSession>,
    /// The lingering sessions that lost their slots to this one. Nobody has to be told: their clients are gone.
    pub displaced: Vec<EndedSession>,
    /// The sessions that were evicted for this one, live or lingering, at most [`SlotUsage::MAX_SHOWN`]. Not the one that it
    /// resumed.
    pub evicted: Vec<EvictedSession>,
}

/// A session was not admitted. Nothing has changed, but for its place in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub reason: DenyReason,
    /// The slots that the user holds.
    pub slots: u32,
    /// The limit in force.
    pub limit: SlotLimit,
    /// Where the limit comes from.
    pub limit_source: LimitSource,
    /// When a new session will find room by itself, if that is known: a lingering slot lapses, or is no longer kept for its
    /// client ([`AdmissionPolicy::linger_grace`]).
    pub free_at: Option<Timestamp>,
    /// True if the client may choose sessions to evict ([`Evict`](super::Evict)).
    pub client_choice: bool,
    /// What became of its wish to wait in line ([`AcquireOptions::waits`]).
    pub line: LinePlace,
}

impl core::fmt::Display for Denied {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.reason {
            DenyReason::LimitReached => {
                write!(f, "the user holds {} slots of {}", self.slots, self.limit)
            }
            DenyReason::Gone => f.write_str("a session that was to be evicted is not there any more"),
            DenyReason::NotResumed(_) => f.write_str("the session cannot be resumed"),
            DenyReason::DeviceFull => f.write_str("the device has as many sessions as it may"),
            DenyReason::NodeDead => f.write_str("the node of the session is dead"),
        }
    }
}

impl core::error::Error for Denied {}

/// Takes a slot for a session, or evicts others for it if the policy says so: the only rule that admits anybody.
///
/// A session that has a slot keeps it and is granted it again. If the slot lingered, it is live again. Lapsed
/// sessions are removed first, as [`remove_lapsed`](super::remove_lapsed) does.
///
/// ```
/// use session_core::ledger::{Acquire, AdmissionPolicy, DenyReason, Liveness, SlotLimit, UserRecord, acquire};
/// use session_core::{NodeId, Timestamp};
///
/// let policy = AdmissionPolicy::new(SlotLimit::new(1).unwrap());
/// let node = NodeId::new(7);
/// let mut ada = UserRecord::default();
/// let first = Acquire { session: node.session(1), token_limit: None, options: None, at: Timestamp::default() };
/// let second = Acquire { session: node.session(2), ..first };
///
/// let grant = acquire(&mut ada, first, &policy, |_| Liveness::Alive).unwrap();
/// assert_eq!(grant.slots, 1);
/// let denied = acquire(&mut ada, second, &policy, |_| Liveness::Alive).unwrap_err();
/// assert_eq!((denied.reason, denied.slots), (DenyReason::LimitReached, 1));
/// assert_eq!(denied.to_string(), "the user holds 1 slots of 1");
/// ```
///
/// # Errors
/// [`Denied`] if the user has no slot left and none could be made free.
pub fn acquire(
    record: &mut UserRecord,
    acquire: Acquire<'_>,
    policy: &AdmissionPolicy,
    liveness: impl Fn(NodeId) -> Liveness,
) -> Result<Grant, Denied> {
    let _lapsed = remove_lapsed_at(record, Some(acquire.at), &liveness);
    admit(record, acquire, policy, &liveness)
}

/// As [`acquire`], for a record whose lapsed sessions have been removed.
pub(super) fn admit(
    record: &mut UserRecord,
    acquire: Acquire<'_>,
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
) -> Result<Grant, Denied> {
    let Acquire { session, token_limit, options, at } = acquire;
    let (limit, limit_source) = policy.limit_for(token_limit);
    let deny = |record: &UserRecord, reason, free_at| Denied {
        reason,
        slots: Slots::count_in(record, policy.count_by),
        limit,
        limit_source,
        free_at,
        client_choice: policy.client_choice && limit.slots() > 0,
        line: LinePlace::NotInLine,
    };
    if liveness(session.node()) != Liveness::Alive {
        return Err(deny(record, DenyReason::NodeDead, None));
    }
    let place = record.place_in_line(session);
    let granted = |record: &UserRecord| grant(record, session, limit, options, policy);
    if let Some(own) = record.sessions_mut().iter_mut().find(|entry| entry.session == session) {
        // Otherwise the slot could be taken from the session without notice, as from one that was lost.
        own.status = SessionStatus::Live;
        return Ok(granted(record));
    }
    let mut resume = Resumption::NotAsked;
    if let Some(options) = options
        && let Some(key) = options.resume
    {
        let may_resume = policy.reuses_above_limit || Slots::count_in(record, policy.count_by) <= limit.slots();
        if limit.slots() > 0
            && may_resume
            && let Some((ended, displaced)) = move_slot(record, &acquire, options, &key)
        {
            line::leave(record, session);
            return Ok(Grant { ended, displaced, ..granted(record) });
        }
        let why = NotResumed::from(record.former_end(&key));
        resume = Resumption::Failed(why);
        if options.must_resume && limit.slots() > 0 {
            let line = line::stay(record, session, options.waits);
            let reason = if may_resume { DenyReason::NotResumed(why) } else { DenyReason::LimitReached };
            return Err(Denied { line, ..deny(record, reason, None) });
        }
    }
    let ahead = place.unwrap_or(record.waiting().len());
    let removed = match find_room_behind(record, ahead, &acquire, limit, policy) {
        Room::AfterEvicting(victims) if victims.is_empty() => Vec::new(),
        Room::AfterEvicting(victims) => remove(record, &victims),
        Room::None { reason, free_at } => {
            let line = match options.filter(|options| options.waits && limit.slots() > 0) {
                Some(options) if reason.allows_waiting() => {
                    line::join(record, session, token_limit, options, policy, at)
                }
                waits => line::stay(record, session, waits.is_some()),
            };
            return Err(Denied { line, ..deny(record, reason, free_at) });
        }
    };
    line::leave(record, session);
    let client = options.map(|options| ClientInfo {
        device: options.device.clone(),
        label: options.label.clone(),
        resumable: options.new_resume_key.map(|key| Resumable { key, linger: policy.linger(), moved_at: None }),
    });
    let client = client.filter(|client| *client != ClientInfo::default()).map(Box::new);
    record.sessions_mut().push(SessionRecord { client, claim: token_limit, ..SessionRecord::new(session, at) });
    let mut grant = Grant { resume, ..granted(record) };
    if !removed.is_empty() {
        let names = options.and_then(|options| SessionNames::new(options.device.as_ref(), options.label.as_ref()));
        let reason = takeover(&removed, options, policy)(names);
        (grant.ended, grant.displaced) = split_by_status(&removed, &reason);
        let evicted = |entry: &SessionRecord| EvictedSession { slot: entry.slot, names: entry.names() };
        grant.evicted = removed.iter().take(SlotUsage::MAX_SHOWN).map(evicted).collect();
    }
    Ok(grant)
}

/// What the sessions are told that were evicted for a session with these options.
fn takeover(
    removed: &[SessionRecord],
    options: Option<&AcquireOptions>,
    policy: &AdmissionPolicy,
) -> fn(Option<Box<SessionNames>>) -> EndReason {
    let device = options.and_then(|options| options.device.as_ref());
    let is_own_device = device.is_some() && removed.iter().all(|entry| entry.device() == device);
    if policy.count_by == CountBy::Devices && is_own_device { EndReason::DeviceFull } else { EndReason::TakenOver }
}

/// A slot that moves from a live session to another connection twice within this time is contested: two clients have its
/// resume token, as after a browser tab was duplicated. A client that comes back twice in this time, because its network
/// failed twice, does not hear of it: its earlier connections are dead.
const CONTEST_WINDOW: Duration = Duration::from_secs(10);

/// Moves a slot to the session that shows its resume token. The session that had it loses it, so nobody is admitted. Returns
/// that session, if it was live and has to be told, or if it lingered.
///
/// The slot keeps its device: under another device it could count twice. A client that names a device resumes only
/// slots of that device. Otherwise clients of many devices could share one slot.
fn move_slot(
    record: &mut UserRecord,
    &Acquire { session, token_limit, at, .. }: &Acquire<'_>,
    options: &AcquireOptions,
    key: &ResumeKey,
) -> Option<(Vec<EndedSession>, Vec<EndedSession>)> {
    let fits = |entry: &&mut SessionRecord| {
        entry.resumable().is_some_and(|resumable| resumable.key == *key)
            && (options.device.is_none() || options.device.as_ref() == entry.device())
    };
    let entry = record.sessions_mut().iter_mut().find(fits)?;
    let before = [entry.clone()];
    (entry.session, entry.status, entry.claim) = (session, SessionStatus::Live, token_limit);
    entry.watches = false;
    let mut reason = EndReason::Resumed;
    if let Some(client) = &mut entry.client {
        if let Some(label) = &options.label {
            client.label = Some(label.clone());
        }
        if let Some(resumable) = &mut client.resumable
            && before[0].status == SessionStatus::Live
            && let Some(moved_at) = resumable.moved_at.replace(at)
            && at.since(moved_at) < CONTEST_WINDOW
        {
            reason = EndReason::Contested;
        }
    }
    Some(split_by_status(&before, &reason))
}

/// As [`find_room`], behind the first of those who wait in line.
fn find_room_behind(
    record: &UserRecord,
    ahead: usize,
    acquire: &Acquire<'_>,
    limit: SlotLimit,
    policy: &AdmissionPolicy,
) -> Room {
    let &Acquire { session, token_limit, options, at } = acquire;
    let device = options.and_then(|options| options.device.as_ref());
    let choice = options.and_then(|options| options.evict.as_ref());
    let ahead = &record.waiting()[..ahead];
    let called = line::called_among(record, ahead, policy, at);
    if called.is_empty() {
        return find_room(record, limit, device, choice, policy, at);
    }
    // Those before it have not asked yet, so whom they will evict is still there.
    let mut later = record.clone();
    let seated = ahead.iter().filter(|waiter| called.contains(&waiter.session)).map(|waiter| waiter.seated(at));
    later.sessions_mut().extend(seated);
    let no_room = |reason, free_at| {
        // Whom the client named is looked for in the record itself.
        let reason = if names_gone(record, choice, policy) {
            DenyReason::Gone
        } else if reason == DenyReason::Gone {
            DenyReason::LimitReached
        } else {
            reason
        };
        Room::None { reason, free_at }
    };
    let mut victims = match find_room(&later, limit, device, choice, policy, at) {
        Room::AfterEvicting(victims) => victims,
        Room::None { reason, free_at } => return no_room(reason, free_at),
    };
    let is_named = |id: SessionId| matches!(choice, Some(Evict::Sessions(chosen)) if chosen.contains(&id));
    if called.iter().any(|&waiter| is_named(waiter) && victims.contains(&waiter)) {
        // A session in line has no slot yet. So it cannot be evicted, even if the client names it.
        return no_room(DenyReason::LimitReached, None);
    }
    victims.retain(|&victim| record.session(victim).is_some());
    let mut then = record.clone();
    then.sessions_mut().retain(|entry| !victims.contains(&entry.session));
    let has_slot = device.is_some_and(|device| Slots::from_record(record, policy.count_by).of_device(device).is_some());
    if !has_slot {
        // It may share the slot that one before it will take for the same device. Then it is the one that takes it.
        let Room::AfterEvicting(others) = find_room(&then, limit, device, choice, policy, at) else {
            return no_room(DenyReason::LimitReached, None);
        };
        then.sessions_mut().retain(|entry| !others.contains(&entry.session));
        victims.extend(others);
    }
    then.sessions_mut().push(line::seated(session, token_limit, device, at));
    // All before it must still find room, also those whose tokens claim a lower limit. Only who would be evicted as soon as it
    // is admitted goes on waiting instead.
    let still = line::called_among(&then, ahead, policy, at);
    if evicts_oldest(policy, choice) || called.iter().all(|waiter| still.contains(waiter)) {
        Room::AfterEvicting(victims)
    } else {
        no_room(DenyReason::LimitReached, None)
    }
}

/// The grant to a session that has its slot.
fn grant(
    record: &UserRecord,
    session: SessionId,
    limit: SlotLimit,
    options: Option<&AcquireOptions>,
    policy: &AdmissionPolicy,
) -> Grant {
    let entry = record.session(session).expect("the session has its slot");
    let resumable = entry.resumable();
    let key = resumable.map(|resumable| resumable.key);
    let is_resumed = key.is_some() && key == options.and_then(|options| options.resume);
    Grant {
        slots: Slots::count_in(record, policy.count_by),
        limit,
        linger: resumable.map_or(Duration::ZERO, |resumable| resumable.linger),
        slot: entry.slot,
        since: entry.since,
        resume: if is_resumed { Resumption::Resumed } else { Resumption::NotAsked },
        ended: Vec::new(),
        displaced: Vec::new(),
        evicted: Vec::new(),
    }
}
