//! Logs sessions that are not admitted, at a bounded rate.

use session_core::UserId;
use session_core::ledger::Outcome;
use session_core::protocol::AuthenticateFailure;

use crate::auth::InvalidCredential;
use crate::net::message_socket::MessageSize;
use crate::runtime::log::LogRateLimiter;

/// Logs failed authentications. Each kind has its own rate limit, so that frequent denials do not hide store failures.
#[derive(Debug, Default)]
pub struct RefusalLog {
    denied: LogRateLimiter,
    credential: LogRateLimiter,
    store: LogRateLimiter,
    too_big: LogRateLimiter,
    verify: LogRateLimiter,
}

impl RefusalLog {
    /// Logs an invalid credential. A claim at fault is logged by its name and the type of its value, never with the value.
    pub fn log_invalid_credential(&self, invalid: &InvalidCredential) {
        if let Some(suppressed) = self.credential.check() {
            let InvalidCredential { error, claim } = invalid;
            let (claim, found) = claim.as_ref().map(|claim| (&*claim.name, claim.found)).unzip();
            tracing::info!(
                why = error.message(),
                claim,
                found,
                suppressed,
                "authentication failed: invalid credential"
            );
        }
    }

    /// Logs a credential that was not checked in time.
    pub fn log_verify_timeout(&self) {
        if let Some(suppressed) = self.verify.check() {
            tracing::warn!(suppressed, "authentication failed: the credential was not checked in time");
        }
    }

    /// Logs a valid credential of another user, or of another device, than the session's.
    pub fn log_failed_renewal(&self, failure: &AuthenticateFailure) {
        if let Some(suppressed) = self.credential.check() {
            let why = failure.message();
            tracing::info!(%why, suppressed, "cannot renew a session: the credential is not of this session");
        }
    }

    /// Logs that a message closes its connection, with the bound and its setting. The client learns neither.
    pub fn log_message_too_big(&self, MessageSize { bytes, max }: MessageSize) {
        if let Some(suppressed) = self.too_big.check() {
            tracing::info!(
                message_bytes = bytes,
                max_message_bytes = max,
                suppressed,
                "closing a connection: a message is too big"
            );
        }
    }

    /// Logs the outcome of an acquire, unless it was granted.
    pub fn log_outcome(&self, user: &UserId, outcome: &Outcome) {
        match outcome {
            Outcome::Granted { .. } => {}
            Outcome::Denied(_) => {
                if let Some(suppressed) = self.denied.check() {
                    tracing::info!(%user, suppressed, "denied a slot: the user has reached the limit");
                }
            }
            Outcome::Rejected(cause) => {
                if let Some(suppressed) = self.store.check() {
                    tracing::warn!(
                        why = cause.message(),
                        suppressed,
                        "authentication failed: the store rejected the command"
                    );
                }
            }
            Outcome::Unknown
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. }
            | Outcome::NotRenewed(_) => {
                if let Some(suppressed) = self.store.check() {
                    tracing::warn!(suppressed, "authentication failed: the store did not answer in time");
                }
            }
        }
    }
}
