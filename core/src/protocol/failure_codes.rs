//! What the codes of an `AUTHENTICATE_FAILURE` mean. The page of the protocol is drawn from this.

use super::error::AuthenticateFailure;

impl AuthenticateFailure {
    /// What its [`code`](AuthenticateFailure::code) means, for developers of clients. Failures with the same code have the same
    /// meaning.
    #[must_use]
    pub const fn meaning(&self) -> &'static str {
        match self {
            Self::LimitReached => "all slots are taken, or those who wait in line will take the rest",
            Self::Banned => "the limit is 0",
            Self::DeviceFull => {
                "the device has as many sessions as one may. `evict` can only end sessions of this device"
            }
            Self::Gone => "all slots are taken, and a session in `evict` is not there any more. The list is new",
            Self::NotResumed(_) => {
                "the session cannot be resumed, and `if_not_resumed` is `\"refuse\"`. `not_resumed` says why, as in a grant. A \
                 slot may be free all the same, so there is no `retry_after_ms`"
            }
            Self::BadOptions(_) => "the `field` of the object is wrong",
            Self::AlreadyAuthenticated => "the session has a slot, and a credential that never expires",
            Self::Credential(_) => "the credential is not valid",
            Self::AnotherUser => "the credential is not of the session's user",
            Self::AnotherDevice => "the fresh token is not of the session's device",
            Self::NotChecked => "nobody knows yet whether the credential is valid",
            Self::Store(_) | Self::StoreTimedOut => "the store rejected the request or did not answer",
            Self::Other(_) => "a newer server has another reason",
        }
    }
}
