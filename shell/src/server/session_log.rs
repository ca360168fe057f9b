//! Logs what happens to sessions.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::auth::InvalidCredential;
use crate::net::message_socket::MessageSize;
use crate::runtime::events::logged_user::names_users;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};
use session_core::ledger::{EndReason, LinePlace, Outcome, Resumption};
use session_core::protocol::{AuthenticateFailure, CloseReason};
use session_core::{SessionId, UserId};

/// Logs what happens to sessions. What a client could cause often is logged once a second, unless the level is debug.
#[derive(Debug, Default)]
pub struct SessionLog {
    limiter: LogRateLimiter,
}

/// The session and the client that a line is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The session.
    pub session: SessionId,
    /// The client's address, if it is known.
    pub client_address: Option<IpAddr>,
}

/// What the session's client is told. A client chooses the name of its device in it, which may be the user's own: it is left
/// out unless the log names users by their ids.
fn logged_reason(reason: &EndReason) -> Cow<'static, str> {
    match reason {
        EndReason::TakenOver(Some(_)) | EndReason::DeviceFull(Some(_)) if !names_users() => {
            EndReason::TakenOver(None).message()
        }
        EndReason::ByUser(Some(_)) if !names_users() => EndReason::ByUser(None).message(),
        EndReason::TakenOver(_)
        | EndReason::DeviceFull(_)
        | EndReason::ByUser(_)
        | EndReason::ByOperator
        | EndReason::LimitLowered
        | EndReason::Banned
        | EndReason::Resumed
        | EndReason::Contested => reason.message(),
    }
}

impl SessionLog {
    /// Logs an invalid credential. A claim at fault is logged by its name and the type of its value, never with the value.
    pub fn credential_refused(&self, of: Subject, invalid: &InvalidCredential) {
        let claim = invalid.claim.as_ref();
        log_limited!(
            self.limiter,
            credential_refused {
                user: invalid.user.as_ref(),
                session: display(of.session),
                client_address: of.client_address.map(display),
                reason: invalid.error.message(),
                claim: claim.map(|claim| &*claim.name),
                found: claim.map(|claim| claim.found),
            }
        );
    }

    /// Logs a credential that was not checked in time.
    pub fn credential_not_checked(&self, of: Subject) {
        log_limited!(
            self.limiter,
            credential_not_checked { session: display(of.session), client_address: of.client_address.map(display) }
        );
    }

    /// Logs a credential that cannot be checked, because no keys have come from their provider.
    pub fn credential_undecided(&self, of: Subject) {
        log_limited!(
            self.limiter,
            credential_undecided { session: display(of.session), client_address: of.client_address.map(display) }
        );
    }

    /// Logs a valid credential of another user, or of another device, than the session's.
    pub fn renewal_refused(&self, of: Subject, user: Option<&UserId>, failure: &AuthenticateFailure) {
        log_limited!(
            self.limiter,
            renewal_refused {
                user,
                session: display(of.session),
                client_address: of.client_address.map(display),
                reason: display(failure.message()),
            }
        );
    }

    /// Logs that the session goes on with another credential.
    pub fn renewed(&self, of: Subject, user: Option<&UserId>) {
        log_event!(session_renewed {
            user,
            session: display(of.session),
            client_address: of.client_address.map(display),
        });
    }

    /// Logs that a message closes its connection, with the bound and its setting. The client learns neither.
    pub fn message_too_big(&self, of: Subject, MessageSize { bytes, max }: MessageSize) {
        log_limited!(
            self.limiter,
            message_too_big {
                session: display(of.session),
                client_address: of.client_address.map(display),
                message_bytes: bytes,
                max_message_bytes: max,
            }
        );
    }

    /// Logs the outcome of an acquire.
    pub fn acquire_answered(&self, of: Subject, user: &UserId, outcome: &Outcome) {
        let reason = match outcome {
            Outcome::Granted { slots, grant } => {
                log_event!(session_admitted {
                    user,
                    session: display(of.session),
                    client_address: of.client_address.map(display),
                    connections: *slots,
                    is_resumed: grant.as_ref().is_some_and(|grant| grant.resume == Resumption::Resumed),
                });
                return;
            }
            Outcome::Waiting(usage) => {
                let place = if let LinePlace::At(place) = usage.line { Some(place) } else { None };
                log_event!(session_waiting {
                    user,
                    session: display(of.session),
                    client_address: of.client_address.map(display),
                    place,
                });
                return;
            }
            Outcome::Denied(_) => {
                log_limited!(
                    self.limiter,
                    session_denied {
                        user,
                        session: display(of.session),
                        client_address: of.client_address.map(display),
                    }
                );
                return;
            }
            Outcome::Rejected(cause) => cause.message(),
            Outcome::Unknown
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. }
            | Outcome::NotRenewed(_) => "The store did not answer in time",
        };
        log_limited!(
            self.limiter,
            session_not_stored {
                user,
                session: display(of.session),
                client_address: of.client_address.map(display),
                reason,
            }
        );
    }

    /// Logs that the session has lost its slot.
    pub fn evicted(&self, of: Subject, user: Option<&UserId>, reason: &EndReason) {
        log_event!(session_evicted {
            user,
            session: display(of.session),
            client_address: of.client_address.map(display),
            reason: &*logged_reason(reason),
        });
    }

    /// Logs that the session's client is gone without BYE.
    pub fn lost(&self, of: Subject, user: &UserId) {
        log_event!(session_lost { user, session: display(of.session), client_address: of.client_address.map(display) });
    }

    /// Logs that the server closes the connection. `user` is that of the session's slot.
    pub fn closed(&self, of: Subject, user: Option<&UserId>, reason: CloseReason) {
        log_event!(session_closed {
            user,
            session: display(of.session),
            client_address: of.client_address.map(display),
            close_code: reason.code(),
            reason: reason.message(),
        });
    }

    /// Logs that the session gave its slot up.
    pub fn slot_released(&self, session: SessionId, user: &UserId) {
        log_event!(slot_released { user, session: display(session) });
    }

    /// Logs that the session's slot lingers.
    pub fn slot_lingers(&self, session: SessionId, user: &UserId) {
        log_event!(slot_lingers { user, session: display(session) });
    }
}
