//! When a client comes back by itself, and how soon.

use std::time::Duration;

use session_core::{Refusal, Rejection, TokenError};

use super::{Error, Obstacle};

/// Whether a client that failed may try again, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Not by itself.
    Never,
    /// At once the first time, then with backoff: the connection was lost, and nobody asked it to go.
    AtOnce,
    /// With backoff: the server, or its store, is not well.
    Later,
    /// No sooner than this, after which a slot is known to be free.
    After(Duration),
    /// With another token: this one has run out.
    WithFreshToken,
}

impl Again {
    /// What may be done about an error, as the protocol's table of close codes has it.
    #[must_use]
    pub fn after(error: &Error) -> Self {
        match error {
            Error::Closed { code, .. } => match code {
                1001 | 1011 | 1013 => Self::Later,
                4402 => Self::WithFreshToken,
                4408 => Self::AtOnce,
                // Whoever was ended and came back would end another in turn, for ever.
                _ => Self::Never,
            },
            Error::Lost(_) => Self::AtOnce,
            Error::Unreachable { .. } | Error::TimedOut { .. } => Self::Later,
            Error::Refused { refusal: Refusal::Store(_) | Refusal::StoreSilent, .. } => Self::Later,
            Error::Refused { refusal: Refusal::Credential(Rejection::Token(TokenError::Expired)), .. } => {
                Self::WithFreshToken
            }
            Error::LimitReached { .. } | Error::Refused { .. } => {
                let retry_after = error.denial().and_then(|denial| denial.retry_after);
                retry_after.map_or(Self::Never, Self::After)
            }
            Error::Handshake { why, .. } => match **why {
                // A server that stops still has connections in its queue, and hangs up on them.
                Obstacle::HungUp => Self::Later,
                // It, or a proxy before it, has no room or no server now (RFC 6585 §4, RFC 9110 §15.6).
                Obstacle::Answered { status: 429 | 502..=504, retry_after, .. } => {
                    retry_after.map_or(Self::Later, Self::After)
                }
                Obstacle::Answered { .. }
                | Obstacle::SpeaksTls
                | Obstacle::SpeaksNoTls
                | Obstacle::NotTrusted
                | Obstacle::WrongName { .. }
                | Obstacle::Expired
                | Obstacle::NotYetValid
                | Obstacle::BadCertificate(_)
                | Obstacle::Tls(_)
                | Obstacle::Protocol(_) => Self::Never,
            },
            Error::BadUrl(_)
            | Error::BadCa { .. }
            | Error::BadToken { .. }
            | Error::BadResumeFile { .. }
            | Error::TokenTakenForName
            | Error::Evicted(_)
            | Error::Complaint(_)
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
    pub const FIRST: Duration = Duration::from_millis(500);
    /// What no bound is above.
    pub const LONGEST: Duration = Duration::from_secs(30);
    /// How long a session is held until it counts as one that did not fail.
    pub const HELD: Duration = Duration::from_secs(30);

    /// How long to wait now, if trying again makes sense. `random` is drawn evenly from 0 to 1.
    pub fn wait(&mut self, again: Again, random: f64) -> Option<Duration> {
        let bound = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        let drawn = bound.mul_f64(random.clamp(0.0, 1.0));
        let wait = match again {
            Again::Never => return None,
            Again::AtOnce if self.failures == 0 => Duration::ZERO,
            Again::AtOnce | Again::Later => drawn,
            // Together with all others who were told the same.
            Again::After(wait) => wait + drawn,
            Again::WithFreshToken => Duration::ZERO,
        };
        self.failures = self.failures.saturating_add(1);
        Some(wait)
    }

    /// Takes note that a session was held for so long.
    pub fn held_for(&mut self, time: Duration) {
        if time >= Self::HELD {
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
        Error::Closed { code, words: String::new() }
    }

    #[test]
    fn each_end_has_its_way_back_or_none() {
        for (codes, again) in [
            (&[1001, 1011, 1013][..], Again::Later),
            (&[4408], Again::AtOnce),
            (&[4402], Again::WithFreshToken),
            (&[1000, 1002, 1003, 1005, 1007, 1008, 1009, 4401, 4409, 4410, 4999], Again::Never),
        ] {
            for &code in codes {
                assert_eq!(Again::after(&closed(code)), again, "{code}");
            }
        }
        assert_eq!(Again::after(&Error::Lost("x".into())), Again::AtOnce);
        assert_eq!(Again::after(&Error::Evicted("x".into())), Again::Never);
        let refused = |refusal| Error::Refused { user: None, refusal, denial: None };
        assert_eq!(Again::after(&refused(Refusal::Store(Cause::Failed))), Again::Later);
        assert_eq!(Again::after(&refused(Refusal::AnotherUser)), Again::Never);
        let token = |error| refused(Refusal::Credential(Rejection::Token(error)));
        assert_eq!(Again::after(&token(TokenError::Expired)), Again::WithFreshToken);
        assert_eq!(Again::after(&token(TokenError::Signature)), Again::Never);
        let full = |retry_after| {
            let denial = Denial {
                refusal: Refusal::LimitReached,
                limit: None,
                connections: None,
                sessions: None,
                retry_after,
                may_choose: false,
            };
            Error::LimitReached { user: None, denial: Some(Box::new(denial)) }
        };
        let second = Duration::from_secs(1);
        assert_eq!(Again::after(&full(Some(second))), Again::After(second));
        assert_eq!(Again::after(&full(None)), Again::Never);
        assert_eq!(Again::after(&Error::LimitReached { user: None, denial: None }), Again::Never);
    }

    #[test]
    fn a_server_that_stops_or_is_full_may_be_tried_again_and_one_that_is_none_may_not() {
        let url = Box::new("ws://localhost".parse::<Url>().unwrap());
        let handshake = |why| Again::after(&Error::Handshake { url: url.clone(), why: Box::new(why) });
        let answered = |status, seconds: Option<u64>| {
            let retry_after = seconds.map(Duration::from_secs);
            handshake(Obstacle::Answered { status, message: None, retry_after })
        };
        assert_eq!(handshake(Obstacle::HungUp), Again::Later);
        for status in [429, 502, 503, 504] {
            assert_eq!(answered(status, None), Again::Later);
            assert_eq!(answered(status, Some(7)), Again::After(Duration::from_secs(7)));
        }
        for status in [200, 400, 403, 404, 421, 500] {
            assert_eq!(answered(status, Some(7)), Again::Never);
        }
        assert_eq!(handshake(Obstacle::SpeaksTls), Again::Never);
        assert_eq!(handshake(Obstacle::Expired), Again::Never);
    }

    #[test]
    fn waits_double_up_to_half_a_minute_and_begin_anew_after_one_that_held() {
        let mut backoff = Backoff::default();
        let mut most = || backoff.wait(Again::Later, 1.0).unwrap().as_millis();
        assert_eq!([(); 9].map(|()| most()), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.wait(Again::Later, 0.5), Some(Duration::from_secs(15)));
        assert_eq!(backoff.wait(Again::Later, 0.0), Some(Duration::ZERO));
        assert_eq!(backoff.wait(Again::Never, 1.0), None);
        backoff.held_for(Duration::from_millis(29_999));
        assert_eq!(backoff.wait(Again::AtOnce, 1.0), Some(Backoff::LONGEST));
        backoff.held_for(Backoff::HELD);
        assert_eq!(backoff.wait(Again::AtOnce, 1.0), Some(Duration::ZERO));
        assert_eq!(backoff.wait(Again::AtOnce, 1.0), Some(Duration::from_secs(1)), "at once is once");
    }

    #[test]
    fn nobody_comes_before_a_slot_is_free() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::default().wait(Again::After(second), 0.0), Some(second));
        assert_eq!(Backoff::default().wait(Again::After(second), 1.0), Some(second + Backoff::FIRST));
    }
}
