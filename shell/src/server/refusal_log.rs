//! Logs sessions that are not admitted, at a bounded rate.

use session_core::UserId;
use session_core::ledger::Outcome;
use session_core::protocol::{AuthenticateFailure, CredentialError};

use crate::runtime::log::LogRateLimiter;

/// Logs refused sessions at a bounded rate, those of the limit apart from those that tell of trouble.
#[derive(Debug, Default)]
pub struct RefusalLog {
    by_limit: LogRateLimiter,
    by_credential: LogRateLimiter,
    by_store: LogRateLimiter,
}

impl RefusalLog {
    /// Takes note of a credential that lets nobody in.
    pub fn log_credential_error(&self, error: CredentialError) {
        if let Some(suppressed) = self.by_credential.check() {
            tracing::info!(why = error.message(), suppressed, "refused a session: the credential is no good");
        }
    }

    /// Takes note of a credential that is good, but of another user than the one whose session it was shown to.
    pub fn log_another_user(&self) {
        if let Some(suppressed) = self.by_credential.check() {
            let why = AuthenticateFailure::AnotherUser.message();
            tracing::info!(%why, suppressed, "refused to renew a session");
        }
    }

    /// Takes note of what became of an acquire.
    pub fn log_outcome(&self, user: &UserId, outcome: &Outcome) {
        match outcome {
            Outcome::Granted { .. } => {}
            Outcome::Denied(_) => {
                if let Some(suppressed) = self.by_limit.check() {
                    tracing::info!(%user, suppressed, "refused a session: the user has reached the limit");
                }
            }
            Outcome::Rejected(cause) => {
                if let Some(suppressed) = self.by_store.check() {
                    tracing::warn!(why = cause.message(), suppressed, "refused a session: the store took no slot");
                }
            }
            Outcome::Unknown
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. } => {
                if let Some(suppressed) = self.by_store.check() {
                    tracing::warn!(suppressed, "refused a session: the store did not answer in time");
                }
            }
        }
    }
}
