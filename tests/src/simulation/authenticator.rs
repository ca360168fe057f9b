//! Authentication in the simulation: plain user ids, and unsigned tokens.

use session_core::ledger::SlotLimit;
use session_core::protocol::{Credential, TokenError};
use session_core::session::Identity;
use session_core::{UnixSeconds, UserId};
use shell::auth::{Authenticator, InvalidCredential, OpenAuthenticator};
use shell::runtime::clock::Clock;

use super::faulty_store::MAX_CLAIM;

/// Accepts the tokens of [`token`], and plain user ids.
pub(super) struct SimulatedAuthenticator {
    pub(super) clock: Clock,
}

/// A token of a user, with a limit of up to [`MAX_CLAIM`] if any.
pub(super) fn token(user: &UserId, limit: Option<u8>, expires: UnixSeconds) -> Credential {
    let limit = limit.map_or(String::new(), |limit| (u32::from(limit) % (MAX_CLAIM + 1)).to_string());
    Credential::Token(format!("{user}|{limit}|{}", expires.unix_seconds()).into())
}

/// When a token expires.
pub(super) fn expiry(token: &str) -> Option<UnixSeconds> {
    token.rsplit_once('|')?.1.parse().map(UnixSeconds::from_unix_seconds).ok()
}

impl Authenticator for SimulatedAuthenticator {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, InvalidCredential> {
        let Credential::Token(token) = credential else { return OpenAuthenticator::default().authenticate(credential) };
        Ok(self.read(token)?)
    }

    /// Its clients name no users but their own, so their connections can be counted by user.
    fn proves_user(&self) -> bool {
        true
    }
}

impl SimulatedAuthenticator {
    fn read(&self, token: &str) -> Result<Identity, TokenError> {
        let [user, limit, _] = token.split('|').collect::<Vec<_>>()[..] else {
            return Err(TokenError::Malformed);
        };
        let user = UserId::parse(user).map_err(|_| TokenError::NoUser)?;
        let limit = limit.parse().ok().and_then(|slots| SlotLimit::new(slots).ok());
        let expires = expiry(token).ok_or(TokenError::NoExpiry)?;
        if self.clock.has_passed(expires) {
            return Err(TokenError::Expired);
        }
        Ok(Identity { limit, expires: Some(expires), ..Identity::for_user(user) })
    }
}
