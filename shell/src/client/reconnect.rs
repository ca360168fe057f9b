//! Whether and when a client reconnects.

use std::time::Duration;

use session_core::protocol::{AuthenticateFailure, CredentialError, Reconnect, TokenError};

use super::{ConnectError, Error};

/// Whether a client may retry after a failure, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Do not retry.
    Never,
    /// Retry at once, then with backoff: the connection was lost.
    Immediately,
    /// Retry with backoff: the server or its store has a problem.
    WithBackoff,
    /// Retry after this time, when a slot will be free, plus backoff.
    After(Duration),
    /// Retry with a new token: this one has expired.
    WithFreshToken,
}

impl RetryDecision {
    /// Decides after an error, as the protocol's table of close codes says.
    #[must_use]
    pub fn from_error(error: &Error) -> Self {
        match error {
            Error::Closed { code, .. } => Reconnect::after_code(*code).into(),
            Error::Lost(_) => Self::Immediately,
            Error::Unreachable { .. } | Error::TimedOut { .. } => Self::WithBackoff,
            Error::Refused {
                reason:
                    AuthenticateFailure::NotChecked | AuthenticateFailure::Store(_) | AuthenticateFailure::StoreTimedOut,
                ..
            } => Self::WithBackoff,
            Error::Refused {
                reason: AuthenticateFailure::Credential(CredentialError::Token(TokenError::Expired)),
                ..
            } => Self::WithFreshToken,
            Error::Denied { .. } | Error::Refused { .. } => {
                let retry_after = error.failure_details().and_then(|details| details.retry_after);
                retry_after.map_or(Self::Never, Self::After)
            }
            Error::Handshake { reason, .. } => match **reason {
                // A server that shuts down hangs up on the connections that still wait in its queue.
                ConnectError::HungUp => Self::WithBackoff,
                // The server, or a proxy in front of it, is overloaded or away (RFC 6585 §4, RFC 9110 §15.6).
                ConnectError::Answered { status: 429 | 502..=504, retry_after, .. } => {
                    retry_after.map_or(Self::WithBackoff, Self::After)
                }
                ConnectError::Answered { .. }
                | ConnectError::SpeaksTls
                | ConnectError::SpeaksNoTls
                | ConnectError::NotTrusted
                | ConnectError::WrongName { .. }
                | ConnectError::Expired
                | ConnectError::NotYetValid
                | ConnectError::BadCertificate(_)
                | ConnectError::Tls(_)
                | ConnectError::Protocol(_) => Self::Never,
            },
            Error::BadUrl(_)
            | Error::BadCa { .. }
            | Error::BadToken { .. }
            | Error::BadResumeFile { .. }
            | Error::TokenTakenForName
            | Error::Evicted(_)
            | Error::RequestFailed(_)
            | Error::Unexpected { .. }
            | Error::NotConnected { .. } => Self::Never,
        }
    }
}

impl From<Reconnect> for RetryDecision {
    fn from(reconnect: Reconnect) -> Self {
        match reconnect {
            Reconnect::Never => Self::Never,
            Reconnect::Immediately => Self::Immediately,
            Reconnect::WithBackoff => Self::WithBackoff,
            Reconnect::WithFreshToken => Self::WithFreshToken,
        }
    }
}

/// Exponential backoff with full jitter, so that the clients of a failed server do not all reconnect at the same time.
///
/// After `n` failures in a row the wait is random, from zero to half a second times 2ⁿ, at most 30 seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The longest first wait.
    pub const FIRST_BOUND: Duration = Duration::from_millis(500);
    /// The longest wait.
    pub const MAX_BOUND: Duration = Duration::from_secs(30);
    /// A session held for this long resets the backoff.
    pub const RESET_AFTER: Duration = Duration::from_secs(30);

    /// The next wait. `None` if the client must not retry. `random` is drawn evenly from 0 to 1.
    pub fn next_wait(&mut self, decision: RetryDecision, random: f64) -> Option<Duration> {
        let bound = Self::FIRST_BOUND.saturating_mul(1 << self.failures.min(16)).min(Self::MAX_BOUND);
        let drawn = bound.mul_f64(random.clamp(0.0, 1.0));
        let next_wait = match decision {
            RetryDecision::Never => return None,
            RetryDecision::Immediately if self.failures == 0 => Duration::ZERO,
            RetryDecision::Immediately | RetryDecision::WithBackoff => drawn,
            // With jitter: other clients were told the same time.
            RetryDecision::After(next_wait) => next_wait + drawn,
            RetryDecision::WithFreshToken => Duration::ZERO,
        };
        self.failures = self.failures.saturating_add(1);
        Some(next_wait)
    }

    /// Records how long a session was held.
    pub fn record_held(&mut self, time: Duration) {
        if time >= Self::RESET_AFTER {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use session_core::ledger::StoreError;
    use session_core::protocol::AuthenticateFailureDetails;

    use super::*;
    use crate::client::Url;

    fn closed(code: u16) -> Error {
        Error::Closed { code, reason: String::new() }
    }

    #[test]
    fn each_error_has_its_retry_decision() {
        for (codes, decision) in [
            (&[1001, 1011, 1013][..], RetryDecision::WithBackoff),
            (&[4408], RetryDecision::Immediately),
            (&[4402], RetryDecision::WithFreshToken),
            (&[1000, 1002, 1003, 1005, 1007, 1008, 1009, 4401, 4403, 4409, 4410, 4411, 4999], RetryDecision::Never),
        ] {
            for &code in codes {
                assert_eq!(RetryDecision::from_error(&closed(code)), decision, "{code}");
            }
        }
        assert_eq!(RetryDecision::from_error(&Error::Lost("x".into())), RetryDecision::Immediately);
        assert_eq!(RetryDecision::from_error(&Error::Evicted("x".into())), RetryDecision::Never);
        let refused = |reason| Error::Refused { user: None, reason, details: None };
        assert_eq!(
            RetryDecision::from_error(&refused(AuthenticateFailure::Store(StoreError::Failed))),
            RetryDecision::WithBackoff
        );
        assert_eq!(RetryDecision::from_error(&refused(AuthenticateFailure::NotChecked)), RetryDecision::WithBackoff);
        assert_eq!(RetryDecision::from_error(&refused(AuthenticateFailure::AnotherUser)), RetryDecision::Never);
        let token = |error| refused(AuthenticateFailure::Credential(CredentialError::Token(error)));
        assert_eq!(RetryDecision::from_error(&token(TokenError::Expired)), RetryDecision::WithFreshToken);
        assert_eq!(RetryDecision::from_error(&token(TokenError::Signature)), RetryDecision::Never);
        let full = |retry_after| {
            let details = AuthenticateFailureDetails::new(AuthenticateFailure::LimitReached);
            let details = AuthenticateFailureDetails { retry_after, ..details };
            Error::Denied { user: None, is_device_full: false, details: Some(Box::new(details)) }
        };
        let second = Duration::from_secs(1);
        assert_eq!(RetryDecision::from_error(&full(Some(second))), RetryDecision::After(second));
        assert_eq!(RetryDecision::from_error(&full(None)), RetryDecision::Never);
        let denied = Error::Denied { user: None, is_device_full: false, details: None };
        assert_eq!(RetryDecision::from_error(&denied), RetryDecision::Never);
    }

    #[test]
    fn handshake_errors_retry_only_if_temporary() {
        let url = Box::new("ws://localhost".parse::<Url>().unwrap());
        let handshake =
            |reason| RetryDecision::from_error(&Error::Handshake { url: url.clone(), reason: Box::new(reason) });
        let answered = |status, seconds: Option<u64>| {
            let retry_after = seconds.map(Duration::from_secs);
            handshake(ConnectError::Answered { status, message: None, retry_after })
        };
        assert_eq!(handshake(ConnectError::HungUp), RetryDecision::WithBackoff);
        for status in [429, 502, 503, 504] {
            assert_eq!(answered(status, None), RetryDecision::WithBackoff);
            assert_eq!(answered(status, Some(7)), RetryDecision::After(Duration::from_secs(7)));
        }
        for status in [200, 400, 403, 404, 421, 500] {
            assert_eq!(answered(status, Some(7)), RetryDecision::Never);
        }
        assert_eq!(handshake(ConnectError::SpeaksTls), RetryDecision::Never);
        assert_eq!(handshake(ConnectError::Expired), RetryDecision::Never);
    }

    #[test]
    fn backoff_doubles_and_resets_after_a_held_session() {
        let mut backoff = Backoff::default();
        let mut most = || backoff.next_wait(RetryDecision::WithBackoff, 1.0).unwrap().as_millis();
        assert_eq!([(); 9].map(|()| most()), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.next_wait(RetryDecision::WithBackoff, 0.5), Some(Duration::from_secs(15)));
        assert_eq!(backoff.next_wait(RetryDecision::WithBackoff, 0.0), Some(Duration::ZERO));
        assert_eq!(backoff.next_wait(RetryDecision::Never, 1.0), None);
        backoff.record_held(Duration::from_millis(29_999));
        assert_eq!(backoff.next_wait(RetryDecision::Immediately, 1.0), Some(Backoff::MAX_BOUND));
        backoff.record_held(Backoff::RESET_AFTER);
        assert_eq!(backoff.next_wait(RetryDecision::Immediately, 1.0), Some(Duration::ZERO));
        assert_eq!(backoff.next_wait(RetryDecision::Immediately, 1.0), Some(Duration::from_secs(1)), "at once is once");
    }

    #[test]
    fn retry_after_is_the_shortest_wait() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::default().next_wait(RetryDecision::After(second), 0.0), Some(second));
        assert_eq!(
            Backoff::default().next_wait(RetryDecision::After(second), 1.0),
            Some(second + Backoff::FIRST_BOUND)
        );
    }
}
