//! The rule: who is admitted, who is ended for it, and what else becomes of a record.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::command::{AcquireOptions, EndTarget, StoreCommand};
use super::limit::SlotLimit;
use super::outcome::{ApplyResult, EndReason, EndedSession, Grant, Liveness, Outcome, SlotListing, StoreError};
use super::policy::{AdmissionPolicy, CountBy};
use super::record::{ClientInfo, Resumable, SessionRecord, SessionStatus, UserRecord};
use super::slots::{Slot, Slots};
use crate::id::{NodeId, SessionId};
use crate::time::Timestamp;

/// Applies a command to its user's record: the only place where anyone is admitted.
///
/// First drops every hold that is void, because its node is dead or because it has lingered for its time. A dead node's
/// session acquires nothing: its slot would be void at once, and whoever it told would be one too many. The record may have
/// changed whatever the outcome is.
pub fn apply(
    record: &mut UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: impl Fn(NodeId) -> Liveness,
) -> ApplyResult {
    expire(record, command.at(), &liveness);
    let mut ended = Vec::new();
    let outcome = match command {
        StoreCommand::Acquire { session, limit, at, options, .. } => {
            if liveness(session.node()) == Liveness::Alive {
                acquire(record, *session, *limit, *at, options.as_deref(), policy, &mut ended)
            } else {
                Outcome::Rejected(StoreError::Failed)
            }
        }
        StoreCommand::Release { session, .. } => {
            record.sessions_mut().retain(|hold| hold.session != *session);
            Outcome::Released
        }
        StoreCommand::Linger { session, at, .. } => {
            linger(record, *session, *at);
            Outcome::Released
        }
        StoreCommand::CountSlots { .. } => Outcome::Counted { connections: Slots::count_in(record, policy.count_by) },
        StoreCommand::ListSessions { limit, is_unbounded: whole, .. } => {
            let most = if *whole { UserRecord::MAX_SESSIONS } else { SlotListing::MAX_SHOWN };
            Outcome::Listed(Box::new(listing(record, *limit, policy, most)))
        }
        StoreCommand::EndSessions { session, target: which, reason: by, .. } => {
            end(record, *session, *which, by, policy, &mut ended)
        }
    };
    ApplyResult { outcome, ended }
}

/// Drops what is void at this time, and has what a dead node held linger, if it can: what [`apply`] begins with, for whoever
/// looks through records that nobody touches.
pub fn expire_sessions(record: &mut UserRecord, now: Timestamp, liveness: impl Fn(NodeId) -> Liveness) {
    expire(record, Some(now), &liveness);
}

/// The same. Without a time nothing has lingered for long enough.
fn expire(record: &mut UserRecord, at: Option<Timestamp>, liveness: &impl Fn(NodeId) -> Liveness) {
    record.sessions_mut().retain_mut(|hold| {
        if let Liveness::DeadSince(since) = liveness(hold.session.node()) {
            let latest = since + hold.linger();
            hold.status = match hold.status {
                SessionStatus::Live if hold.linger().is_zero() => return false,
                SessionStatus::Live => SessionStatus::Lingering { until: latest },
                // One that lasts longer was written by a clock that was wrong.
                SessionStatus::Lingering { until } => SessionStatus::Lingering { until: until.min(latest) },
            };
        }
        match hold.status {
            SessionStatus::Live => true,
            SessionStatus::Lingering { until } => at.is_none_or(|at| at < until),
        }
    });
}

fn acquire(
    record: &mut UserRecord,
    session: SessionId,
    claim: Option<SlotLimit>,
    at: Timestamp,
    options: Option<&AcquireOptions>,
    policy: &AdmissionPolicy,
    ended: &mut Vec<EndedSession>,
) -> Outcome {
    let (limit, _) = policy.limit_for(claim);
    if record.session(session).is_some() {
        return granted(record, session, limit, options, policy);
    }
    if limit.slots() > 0 && resume(record, session, options, ended) {
        return granted(record, session, limit, options, policy);
    }
    match make_room(record, limit, options, policy) {
        Room::MadeBy(victims) => {
            let by = options.and_then(|options| options.label.clone().or_else(|| options.device.clone()));
            remove(record, &victims, &EndReason::TakenOver(by), ended);
        }
        Room::None { is_device_full, free_at } => {
            let listing = |_| {
                Box::new(SlotListing {
                    is_device_full,
                    free_at,
                    ..listing(record, claim, policy, SlotListing::MAX_SHOWN)
                })
            };
            return Outcome::Denied(options.map(listing));
        }
    }
    let client_info = options.map(|options| ClientInfo {
        device: options.device.clone(),
        label: options.label.clone(),
        resumable: options.new_resume_key.map(|key| Resumable { key, linger: policy.linger() }),
    });
    let client_info = client_info.filter(|client_info| *client_info != ClientInfo::default()).map(Box::new);
    record.sessions_mut().push(SessionRecord { client: client_info, ..SessionRecord::new(session, at) });
    granted(record, session, limit, options, policy)
}

/// Moves a hold to the session that shows its token: nobody is admitted, and whoever has it loses it.
///
/// Its device stays: another one could make of one slot two. And whoever names a device takes up nothing of another's: many
/// could share the slot of one.
fn resume(
    record: &mut UserRecord,
    session: SessionId,
    options: Option<&AcquireOptions>,
    ended: &mut Vec<EndedSession>,
) -> bool {
    let Some((options, key)) = options.and_then(|options| Some((options, options.resume?))) else { return false };
    let is_meant = |hold: &&mut SessionRecord| {
        hold.resumable().is_some_and(|resumable| resumable.key == key)
            && (options.device.is_none() || options.device.as_ref() == hold.device())
    };
    let Some(hold) = record.sessions_mut().iter_mut().find(is_meant) else { return false };
    if hold.status == SessionStatus::Live {
        ended.push(EndedSession { session: hold.session, reason: EndReason::Resumed });
    }
    (hold.session, hold.status) = (session, SessionStatus::Live);
    if let (Some(client_info), Some(label)) = (&mut hold.client, &options.label) {
        client_info.label = Some(label.clone());
    }
    true
}

/// Whether another session has a place.
enum Room {
    /// It has, once these have lost theirs, if any need to.
    MadeBy(Vec<SessionId>),
    /// It has none.
    None {
        /// Because its device has as many sessions as one may.
        is_device_full: bool,
        /// When it has one, if that is known.
        free_at: Option<Timestamp>,
    },
}

/// Finds a place for one more session: the rule by which anybody is admitted, and by which anybody is ended for it.
fn make_room(
    record: &UserRecord,
    limit: SlotLimit,
    options: Option<&AcquireOptions>,
    policy: &AdmissionPolicy,
) -> Room {
    if limit.slots() == 0 {
        return Room::None { is_device_full: false, free_at: None };
    }
    let is_below = record.sessions().len() < UserRecord::MAX_SESSIONS;
    if policy.count_by == CountBy::Sessions && is_below && Slots::count_in(record, policy.count_by) < limit.slots() {
        return Room::MadeBy(Vec::new());
    }
    let slots = Slots::from_record(record, policy.count_by);
    // Beside others of its device a session has its place among those.
    let shared = options.and_then(|options| slots.of_device(options.device.as_ref()?)).map(Slot::split_by_session);
    let is_shared = shared.is_some();
    let most = if is_shared { u32::from(policy.sessions_per_device.get()) } else { limit.slots() };
    let slots = shared.unwrap_or(slots);
    let mut held = slots.count();
    let mut holds = record.sessions().len();
    let mut victims = Vec::new();
    for slot in slots.victims(policy, options.and_then(|options| options.evict.as_ref())) {
        if held < most && holds < UserRecord::MAX_SESSIONS {
            break;
        }
        held -= 1;
        holds -= slot.sessions.len();
        victims.extend(slot.sessions.iter().map(|hold| hold.session));
    }
    if held < most && holds < UserRecord::MAX_SESSIONS {
        Room::MadeBy(victims)
    } else {
        Room::None { is_device_full: is_shared && slots.count() >= most, free_at: slots.free_at(most) }
    }
}

/// Takes these sessions' holds away. Those that live are told how.
fn remove(record: &mut UserRecord, sessions: &[SessionId], how: &EndReason, ended: &mut Vec<EndedSession>) {
    record.sessions_mut().retain(|hold| {
        let stays = !sessions.contains(&hold.session);
        if !stays && hold.status == SessionStatus::Live {
            ended.push(EndedSession { session: hold.session, reason: how.clone() });
        }
        stays
    });
}

fn granted(
    record: &UserRecord,
    session: SessionId,
    limit: SlotLimit,
    options: Option<&AcquireOptions>,
    policy: &AdmissionPolicy,
) -> Outcome {
    let connections = Slots::count_in(record, policy.count_by);
    let grant = options.map(|options| {
        let resumable = record.session(session).and_then(SessionRecord::resumable);
        let key = resumable.map(|resumable| resumable.key);
        let linger = resumable.map_or(Duration::ZERO, |resumable| resumable.linger);
        Box::new(Grant { limit, linger, is_resumed: key.is_some() && key == options.resume })
    });
    Outcome::Granted { connections, grant }
}

fn linger(record: &mut UserRecord, session: SessionId, at: Timestamp) {
    record.sessions_mut().retain_mut(|hold| {
        if hold.session != session {
            return true;
        }
        if hold.status == SessionStatus::Live {
            hold.status = SessionStatus::Lingering { until: at + hold.linger() };
        }
        !hold.linger().is_zero()
    });
}

fn listing(record: &UserRecord, claim: Option<SlotLimit>, policy: &AdmissionPolicy, most: usize) -> SlotListing {
    let (limit, rule) = policy.limit_for(claim);
    let slots = Slots::from_record(record, policy.count_by);
    SlotListing {
        limit,
        limit_source: rule,
        connections: slots.count(),
        sessions: record.sessions().iter().take(most).cloned().collect(),
        free_at: slots.free_at(limit.slots()),
        is_device_full: false,
        client_choice: policy.client_choice && limit.slots() > 0,
    }
}

fn end(
    record: &mut UserRecord,
    asker: SessionId,
    which: EndTarget,
    by: &EndReason,
    policy: &AdmissionPolicy,
    ended: &mut Vec<EndedSession>,
) -> Outcome {
    let slots = Slots::from_record(record, policy.count_by);
    let mut sessions: Vec<_> = match which {
        EndTarget::One(session) => record.session(session).map(|hold| hold.session).into_iter().collect(),
        EndTarget::All => record.sessions().iter().map(|hold| hold.session).collect(),
        EndTarget::Excess { .. } => slots.over_limit(policy.limit_for(None).0),
    };
    // Whoever has lost its own slot meanwhile ends nobody.
    let may = !matches!(by, EndReason::ByUser(_)) || record.session(asker).is_some();
    sessions.retain(|&session| may && session != asker);
    let named;
    let by = if *by == EndReason::ByUser(None) {
        named = EndReason::ByUser(record.session(asker).and_then(SessionRecord::display_name).cloned());
        &named
    } else {
        by
    };
    if !matches!(which, EndTarget::Excess { dry_run: true }) {
        remove(record, &sessions, by, ended);
    }
    Outcome::Ended { sessions: sessions.into(), connections: Slots::count_in(record, policy.count_by) }
}
