//! How a session asks for its slot, and what it does with the answer.

use alloc::boxed::Box;
use core::mem;

use super::io::{Actions, Effect, Frame, Identity};
use super::machine::Session;
use super::replies::{authenticate_failure, failure_of, limit_failure, reply, success_details};
use super::state::{AcquireRequest, Connection, Manner, PendingCall, Slot};
use crate::ledger::{self, AcquireOptions, GrantDetails, Outcome, Resumption, SlotUsage};
use crate::protocol::{AuthenticateFailure, AuthenticateOptions, CloseReason, ServerMessage, UserSummary};
use crate::time::Timestamp;

impl Session {
    pub(super) fn acquire(
        &mut self,
        identity: Identity,
        options: Option<Box<AuthenticateOptions>>,
        now: Timestamp,
    ) -> Actions {
        let Identity { user, limit, expires, device, resume_token } = identity;
        let (options, request) = match (options, device) {
            (Some(options), token_device) => {
                let (options, request) = AcquireRequest::new(*options, resume_token, token_device, now);
                (Some(Box::new(options)), Some(Box::new(request)))
            }
            // The client sent no options, but its token names a device.
            (None, device @ Some(_)) => (Some(Box::new(AcquireOptions { device, ..AcquireOptions::default() })), None),
            (None, None) => (None, None),
        };
        self.slot = Some(Slot { user: user.clone(), limit, expires, knows_token: false });
        let command = ledger::StoreCommand::Acquire { user, session: self.id, limit, at: now, options };
        self.call(PendingCall::Acquire(request), Effect::Store(command))
    }

    pub(super) fn acquired(
        &mut self,
        request: Option<Box<AcquireRequest>>,
        outcome: Outcome,
        now: Timestamp,
    ) -> Actions {
        let slot = self.slot.take().expect("a pending acquire asks for a slot");
        if !self.is_open() {
            self.acquired_after_end(slot, request.as_deref(), outcome, now);
            return Actions::default();
        }
        let is_detailed = request.is_some();
        let failure = match (outcome, request) {
            (Outcome::Granted { slots, grant }, request) => {
                self.interest = None;
                return reply(self.granted(slot, request, slots, grant, now));
            }
            (Outcome::Waiting(usage), Some(request)) => return self.waits(slot, *request, &usage, now),
            (Outcome::Waiting(_), None) => {
                // It did not ask for that, and gives its place up.
                self.slot = Some(slot);
                AuthenticateFailure::StoreTimedOut
            }
            (Outcome::Denied(usage), _) => {
                if !usage.as_ref().is_some_and(|usage| usage.is_in_line()) {
                    self.leave_line(now);
                }
                return reply(self.denied(usage.as_deref(), is_detailed, now));
            }
            (Outcome::Rejected(store_error), request) => {
                let failure = AuthenticateFailure::Store(store_error);
                match self.stays_in_line(request.as_deref(), failure.clone(), now) {
                    Some(actions) => return actions,
                    None => failure,
                }
            }
            // An outcome that does not fit an acquire says as little as `Unknown`.
            (
                Outcome::Unknown
                | Outcome::Released
                | Outcome::Counted { .. }
                | Outcome::Listed(_)
                | Outcome::Ended { .. }
                | Outcome::NotRenewed(_),
                _,
            ) => {
                // The release tracker takes it out of the line, too.
                self.interest = None;
                AuthenticateFailure::StoreTimedOut
            }
        };
        self.refuse(failure, is_detailed, now)
    }

    /// The user's connections are too many, so the store is not asked for a slot.
    pub(super) fn too_many_connections(&mut self, now: Timestamp) -> Actions {
        let is_detailed = match &self.pending {
            Some(PendingCall::Acquire(request)) => request.is_some(),
            Some(PendingCall::Verify(_) | PendingCall::Query(_)) | None => return Actions::default(),
        };
        (self.pending, self.slot) = (None, None);
        if !self.is_open() {
            return Actions::default();
        }
        self.refuse(AuthenticateFailure::LimitReached, is_detailed, now)
    }

    /// Says why the client gets no slot, and closes.
    pub(super) fn refuse(&mut self, failure: AuthenticateFailure, is_detailed: bool, now: Timestamp) -> Actions {
        Actions {
            send: Some(Frame::Message(authenticate_failure(failure, is_detailed))),
            ..self.end(Some(CloseReason::TryAgainLater), now)
        }
    }

    fn granted(
        &mut self,
        mut slot: Slot,
        request: Option<Box<AcquireRequest>>,
        slots: u32,
        grant: Option<Box<GrantDetails>>,
        now: Timestamp,
    ) -> ServerMessage {
        let user = UserSummary { id: slot.user.clone(), connections: slots };
        let message = match (request, grant) {
            (Some(request), Some(grant)) => {
                let details = success_details(user, self.id, *request, *grant, &self.settings);
                slot.knows_token = details.resume.is_some();
                ServerMessage::AuthenticateSuccessDetailed(Box::new(details))
            }
            (Some(_), None) | (None, _) => ServerMessage::AuthenticateSuccess(user),
        };
        self.slot = Some(slot);
        self.put_off_ping(now);
        message
    }

    fn denied(&mut self, usage: Option<&SlotUsage>, is_detailed: bool, now: Timestamp) -> ServerMessage {
        match usage {
            Some(usage) if is_detailed => {
                let choose_by = if self.is_waiting() { None } else { self.open_retry_window(now) };
                limit_failure(usage, self.id, &mut self.listed, choose_by, now)
            }
            Some(usage) => authenticate_failure(failure_of(usage), false),
            None => authenticate_failure(AuthenticateFailure::LimitReached, is_detailed),
        }
    }

    /// Returns the end of the time to choose and to authenticate again.
    fn open_retry_window(&mut self, now: Timestamp) -> Option<Timestamp> {
        let Connection::Open { deadline, .. } = &mut self.connection else { return None };
        if mem::replace(&mut self.manner, Manner::Choosing) != Manner::Choosing {
            *deadline = (*deadline).max(now + Self::RETRY_WINDOW);
        }
        Some(*deadline)
    }

    /// Keeps a slot that the store granted after the connection ended, or a place in line, for `settle` to give up. After an
    /// outcome that says less, the [`ReleaseTracker`](crate::release_tracker::ReleaseTracker) releases what may be in the store.
    fn acquired_after_end(&mut self, slot: Slot, request: Option<&AcquireRequest>, outcome: Outcome, now: Timestamp) {
        match outcome {
            // It gives up its place.
            Outcome::Waiting(_) => {
                self.slot = Some(slot);
                self.interest = None;
            }
            Outcome::Granted { grant, .. } => {
                self.interest = None;
                // The client never learned of the grant. It can still resume a slot whose token it sent, but not a new one.
                let knows_token = grant.is_some_and(|grant| grant.resume == Resumption::Resumed)
                    && request.is_some_and(|request| request.shown.is_some());
                self.slot = Some(Slot { knows_token, ..slot });
                if let Connection::Ended { linger_from: Some(from) } = &mut self.connection {
                    *from = now;
                }
            }
            // If it is in line, it still is.
            Outcome::Rejected(_) | Outcome::Denied(_) => {}
            Outcome::Unknown
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. }
            | Outcome::NotRenewed(_) => self.interest = None,
        }
    }
}
