//! The facts that a session keeps: its slot, its pending call and its connection.

use alloc::boxed::Box;
use core::num::NonZeroU32;
use core::time::Duration;

use crate::id::{DisplayName, ResumeToken, SessionId, UserId};
use crate::ledger::{AcquireOptions, Evict, SlotLimit};
use crate::protocol::AuthenticateOptions;
use crate::time::{Timestamp, UnixSeconds};

/// The slot that the session holds, or that its pending acquire asks for.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) user: UserId,
    /// The limit that the token claims.
    pub(super) limit: Option<SlotLimit>,
    /// When the token expires.
    pub(super) expires: Option<UnixSeconds>,
    /// Whether the client has the slot's resume token. False until the slot is granted.
    pub(super) knows_token: bool,
}

/// How the client speaks. One value for both facts, to keep the session small: only a client that speaks at length chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It has sent plain strings only, and gets the messages of the plain protocol.
    Plain,
    /// It selected the subprotocol, or has sent an object. It gets the details of each message.
    AtLength,
    /// The same, and it had its [`Session::RETRY_WINDOW`](super::Session::RETRY_WINDOW).
    Choosing,
}

/// A call to the authenticator or to the store that has no answer yet.
#[derive(Debug)]
pub(super) enum PendingCall {
    /// The authenticator verifies a credential. If the session has a slot, this renews its token. The options are there
    /// if the client sent an object.
    Verify(Option<Box<AuthenticateOptions>>),
    /// The store acquires a slot. The request is there if the client sent an object.
    Acquire(Option<Box<AcquireRequest>>),
    /// The store answers a query of a session that has its slot.
    Query(StoreQuery),
}

/// What the session keeps of a request for a slot, for the answer.
#[derive(Debug, Clone)]
pub(super) struct AcquireRequest {
    /// The token that the client sent, to resume a slot.
    pub(super) shown: Option<ResumeToken>,
    /// The token that a new slot can be resumed with.
    pub(super) new: Option<ResumeToken>,
    /// The label, if it was cut to this.
    pub(super) cut_label: Option<DisplayName>,
    /// The keys that were ignored.
    pub(super) ignored: Box<[Box<str>]>,
    /// The client's wish to wait in line.
    pub(super) wait: Option<Box<WaitRequest>>,
    /// Whether the session, which is in line, asks again by itself.
    pub(super) is_own: bool,
}

/// The wish of a client to wait in line.
#[derive(Debug, Clone)]
pub(super) struct WaitRequest {
    /// What the store is asked, to ask it again.
    pub(super) options: AcquireOptions,
    /// The end of the wait.
    pub(super) until: Timestamp,
    /// When to ask again, because a hint came before the answer.
    pub(super) hint_at: Option<Timestamp>,
}

/// What the session wants to hear of while its client is idle. It waits without a slot, and watches with one.
#[derive(Debug)]
pub(super) enum Interest {
    /// It waits in line.
    Waiting(Box<Wait>),
    /// It watches the user's sessions.
    Watching(Box<Watch>),
}

/// A session in line. While it asks again it still is.
#[derive(Debug)]
pub(super) struct Wait {
    /// What it waits for.
    pub(super) slot: Slot,
    /// For the answer when its turn comes.
    pub(super) request: AcquireRequest,
    /// What the store is asked.
    pub(super) options: AcquireOptions,
    pub(super) until: Timestamp,
    /// When to ask again without a hint.
    pub(super) ask_at: Timestamp,
    /// When it asked last.
    pub(super) asked_at: Timestamp,
    /// When to ask again because of a hint.
    pub(super) hint_at: Option<Timestamp>,
    /// The place that the client knows.
    pub(super) place: u16,
    /// What was left of the time to authenticate when the wait began.
    pub(super) time_left: Duration,
    /// What [`Session::set_congested`](super::Session::set_congested) says.
    pub(super) is_congested: bool,
}

/// A session that watches.
#[derive(Debug)]
pub(super) struct Watch {
    /// When it asked last.
    pub(super) asked_at: Timestamp,
    /// When to ask again. `None`: after a hint.
    pub(super) ask_at: Option<Timestamp>,
    /// The fingerprint of the list that the client knows.
    pub(super) fingerprint: NonZeroU32,
    /// What [`Session::set_congested`](super::Session::set_congested) says.
    pub(super) is_congested: bool,
}

impl AcquireRequest {
    /// Splits what the client sent into what the store is asked and what the answer needs. A device in the token overrides the
    /// client's.
    pub(super) fn new(
        options: AuthenticateOptions,
        new: Option<ResumeToken>,
        token_device: Option<DisplayName>,
        now: Timestamp,
    ) -> (AcquireOptions, Self) {
        let AuthenticateOptions { device, label, resume: shown, evict, must_resume, wait, is_label_cut, mut ignored } =
            options;
        if token_device.is_some() && device.is_some() && token_device != device {
            ignored = ignored.into_iter().chain(["device".into()]).collect();
        }
        let cut_label = label.clone().filter(|_| is_label_cut);
        let [resume, new_resume_key] = [shown, new].map(|token| token.map(|token| token.key()));
        let device = token_device.or(device);
        let waits = wait.is_some();
        let options = AcquireOptions { device, label, resume, new_resume_key, evict, must_resume, waits };
        let wait = wait.map(|wait| {
            // The sessions that the client chooses are ended when it asks, if they can be. Later none is, also not the oldest.
            let evict = options.evict.clone().map(|choice| match choice {
                Evict::Sessions(_) => Evict::Sessions(Box::default()),
                Evict::Oldest | Evict::Nobody => choice,
            });
            Box::new(WaitRequest {
                options: AcquireOptions { evict, ..options.clone() },
                until: now + wait,
                hint_at: None,
            })
        });
        (options, Self { shown, new, cut_label, ignored, wait, is_own: false })
    }
}

/// What a session with a slot asks the store.
#[derive(Debug)]
pub(super) enum StoreQuery {
    /// The number of the user's slots, for `CHECK_CONNECTIONS`.
    Connections,
    /// Whether the session may go on with a new token. In a box, to keep the session small.
    Renewal(Box<RenewalQuery>),
    /// The list of the user's sessions, and whether to watch them from now on.
    Sessions(Option<bool>),
    /// The same list, for a session that watches.
    Watch,
    /// The end of the session of the user with this id or slot.
    End(SessionId),
    /// The list of the user's sessions, for a client that asked for the end of one that is not there.
    Gone(SessionId),
}

/// What the new token of a renewal says. The session takes it over when the answer comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RenewalQuery {
    pub(super) limit: Option<SlotLimit>,
    pub(super) expires: Option<UnixSeconds>,
    /// Whether the client sent an object.
    pub(super) is_detailed: bool,
}

/// The connection to the peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connection {
    Open {
        /// Without a slot: the end of the time to authenticate. With a slot: the time of the next ping, or, after the
        /// ping, the time at which the peer counts as dead. One field for all three, to keep the session small. It has
        /// no effect while a call is pending.
        deadline: Timestamp,
        /// Whether the session sent a ping and waits for a sign of life.
        is_pinged: bool,
    },
    Ended {
        /// The time from which the slot lingers, if it can. `None`: the connection ended in a way that releases it.
        linger_from: Option<Timestamp>,
    },
}
