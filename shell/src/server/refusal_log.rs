//! Logs sessions that are not admitted, at a bounded rate.

use session_core::UserId;
use session_core::ledger::Outcome;
use session_core::protocol::{AuthenticateFailure, CredentialError};

use crate::runtime::log::LogRateLimiter;

/// Logs failed authentications. Each kind has its own rate limit, so that frequent denials do not hide store failures.
#[derive(Debug, Default)]
pub struct RefusalLog {
    denied: LogRateLimiter,
    credential: LogRateLimiter,
    store: LogRateLimiter,
    verify: LogRateLimiter,
}

impl RefusalLog {
    /// Logs an invalid credential.
    pub fn log_credential_error(&self, error: CredentialError) {
        if let Some(suppressed) = self.credential.check() {
            tracing::info!(why = error.message(), suppressed, "authentication failed: invalid credential");
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
