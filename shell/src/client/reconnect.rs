//! When a client comes back by itself, and how soon.

use std::time::Duration;

use session_core::{Refusal, Rejection, TokenError};

use super::{ConnectError, Error};

/// Whether a client that failed may try again, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Not by itself.
    Never,
    /// At once the first time, then with backoff: the connection was lost, and nobody asked it to go.
    Immediately,
    /// With backoff: the server, or its store, is not well.
    WithBackoff,
    /// No sooner than this, after which a slot is known to be free.
    After(Duration),
    /// With another token: this one has run out.
    WithFreshToken,
}

impl RetryDecision {
    /// What may be done about an error, as the protocol's table of close codes has it.
    #[must_use]
    pub fn from_error(error: &Error) -> Self {
        match error {
            Error::Closed { code, .. } => match code {
                1001 | 1011 | 1013 => Self::WithBackoff,
                4402 => Self::WithFreshToken,
                4408 => Self::Immediately,
                // Whoever was ended and came back would end another in turn, for ever.
                _ => Self::Never,
            },
            Error::Lost(_) => Self::Immediately,
            Error::Unreachable { .. } | Error::TimedOut { .. } => Self::WithBackoff,
            Error::Refused { refusal: Refusal::Store(_) | Refusal::StoreSilent, .. } => Self::WithBackoff,
            Error::Refused { refusal: Refusal::Credential(Rejection::Token(TokenError::Expired)), .. } => {
                Self::WithFreshToken
            }
            Error::LimitReached { .. } | Error::Refused { .. } => {
                let retry_after = error.failure_details().and_then(|details| details.retry_after);
                retry_after.map_or(Self::Never, Self::After)
            }
            Error::Handshake { reason, .. } => match **reason {
                // A server that stops still has connections in its queue, and hangs up on them.
                ConnectError::HungUp => Self::WithBackoff,
                // It, or a proxy before it, has no room or no server now (RFC 6585 §4, RFC 9110 §15.6).
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

/// How long to wait between tries: exponential backoff with full jitter, so that many clients of a server that has
/// failed do not come back as one.
///
/// After the `n`th failure in a row the wait is drawn evenly from zero to half a second times 2ⁿ, 30 seconds at most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// What the bound of the first wait is.
    pub const FIRST_BOUND: Duration = Duration::from_millis(500);
    /// What no bound is above.
    pub const MAX_BOUND: Duration = Duration::from_secs(30);
    /// How long a session is held until it counts as one that did not fail.
    pub const RESET_AFTER: Duration = Duration::from_secs(30);

    /// How long to wait now, if trying again makes sense. `random` is drawn evenly from 0 to 1.
    pub fn next_wait(&mut self, decision: RetryDecision, random: f64) -> Option<Duration> {
        let bound = Self::FIRST_BOUND.saturating_mul(1 << self.failures.min(16)).min(Self::MAX_BOUND);
        let drawn = bound.mul_f64(random.clamp(0.0, 1.0));
        let next_wait = match decision {
            RetryDecision::Never => return None,
            RetryDecision::Immediately if self.failures == 0 => Duration::ZERO,
            RetryDecision::Immediately | RetryDecision::WithBackoff => drawn,
            // Together with all others who were told the same.
            RetryDecision::After(next_wait) => next_wait + drawn,
            RetryDecision::WithFreshToken => Duration::ZERO,
        };
        self.failures = self.failures.saturating_add(1);
        Some(next_wait)
    }

    /// Takes note that a session was held for so long.
    pub fn record_held(&mut self, time: Duration) {
        if time >= Self::RESET_AFTER {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use session_core::{Cause, Denial};

    use super::*;
    use crate::client::Url;

    fn closed(code: u16) -> Error {
        Error::Closed { code, reason: String::new() }
    }

    #[test]
    fn each_end_has_its_way_back_or_none() {
        for (codes, decision) in [
            (&[1001, 1011, 1013][..], RetryDecision::WithBackoff),
            (&[4408], RetryDecision::Immediately),
            (&[4402], RetryDecision::WithFreshToken),
            (&[1000, 1002, 1003, 1005, 1007, 1008, 1009, 4401, 4409, 4410, 4999], RetryDecision::Never),
        ] {
            for &code in codes {
                assert_eq!(RetryDecision::from_error(&closed(code)), decision, "{code}");
            }
        }
        assert_eq!(RetryDecision::from_error(&Error::Lost("x".into())), RetryDecision::Immediately);
        assert_eq!(RetryDecision::from_error(&Error::Evicted("x".into())), RetryDecision::Never);
        let refused = |refusal| Error::Refused { user: None, refusal, details: None };
        assert_eq!(RetryDecision::from_error(&refused(Refusal::Store(Cause::Failed))), RetryDecision::WithBackoff);
        assert_eq!(RetryDecision::from_error(&refused(Refusal::AnotherUser)), RetryDecision::Never);
        let token = |error| refused(Refusal::Credential(Rejection::Token(error)));
        assert_eq!(RetryDecision::from_error(&token(TokenError::Expired)), RetryDecision::WithFreshToken);
        assert_eq!(RetryDecision::from_error(&token(TokenError::Signature)), RetryDecision::Never);
        let full = |retry_after| {
            let details = Denial {
                refusal: Refusal::LimitReached,
                limit: None,
                connections: None,
                sessions: None,
                retry_after,
                may_choose: false,
            };
            Error::LimitReached { user: None, details: Some(Box::new(details)) }
        };
        let second = Duration::from_secs(1);
        assert_eq!(RetryDecision::from_error(&full(Some(second))), RetryDecision::After(second));
        assert_eq!(RetryDecision::from_error(&full(None)), RetryDecision::Never);
        assert_eq!(RetryDecision::from_error(&Error::LimitReached { user: None, details: None }), RetryDecision::Never);
    }

    #[test]
    fn a_server_that_stops_or_is_full_may_be_tried_again_and_one_that_is_none_may_not() {
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
    fn waits_double_up_to_half_a_minute_and_begin_anew_after_one_that_held() {
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
    fn nobody_comes_before_a_slot_is_free() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::default().next_wait(RetryDecision::After(second), 0.0), Some(second));
        assert_eq!(
            Backoff::default().next_wait(RetryDecision::After(second), 1.0),
            Some(second + Backoff::FIRST_BOUND)
        );
    }
}
