//! The messages of the clients, and how the server verifies their credentials.

use std::time::Duration;

use session_core::ledger::{Evict, SessionRecord, SlotLimit, UserRecord};
use session_core::protocol::{AuthenticateOptions, ClientMessage, Credential, CredentialError, TokenError};
use session_core::session::Identity;
use session_core::{DisplayName, ResumeToken, UnixSeconds, UserId};

use super::scenario::user_id;
use super::simulation::CoreSimulation;

impl CoreSimulation {
    /// A token of a user: `user|limit|expiry`.
    pub(super) fn token(&self, user: u8, limit: Option<u8>, seconds: u8) -> Credential {
        let limit = limit.map_or(String::new(), |limit| (u32::from(limit) % (Self::MAX_CLAIM + 1)).to_string());
        let now = self.now.since_epoch().as_secs().saturating_add_signed(self.wall_ahead);
        Credential::Token(format!("{}|{limit}|{}", user_id(user), now + u64::from(seconds)).into())
    }

    /// AUTHENTICATE with an object. It names sessions and resume tokens that exist.
    pub(super) fn authenticate_with_object(
        &self,
        user: u8,
        device: Option<u8>,
        evict: u8,
        resume: Option<u8>,
    ) -> ClientMessage {
        let sessions = self.store.records.get(&user_id(user)).map_or(&[][..], UserRecord::sessions);
        let choice = match evict % 4 {
            0 => None,
            1 => Some(Evict::Nobody).filter(|_| evict % 8 == 1),
            2 => Some(Evict::Oldest),
            _ => {
                let chosen = sessions.iter().skip(usize::from(evict) / 4 % sessions.len().max(1));
                // By its id, or by its slot.
                let name = |entry: &SessionRecord| if evict < 128 { entry.session } else { entry.slot.first_session() };
                Some(Evict::Sessions(chosen.map(name).collect()))
            }
        };
        let resume =
            resume.and_then(|which| self.resume_tokens.get(usize::from(which) % self.resume_tokens.len().max(1)));
        let options = AuthenticateOptions {
            device: device.and_then(|device| DisplayName::parse(&format!("device {}", device % 3))),
            label: None,
            resume: resume.map(|&(_, token)| token),
            // The protocol has no empty list.
            evict: choice.filter(|evict| !matches!(evict, Evict::Sessions(these) if these.is_empty())),
            must_resume: evict % 16 == 13,
            wait: (evict & 64 != 0).then(|| Duration::from_millis(1 + u64::from(evict % 32) * 1100)),
            ..AuthenticateOptions::default()
        };
        ClientMessage::AuthenticateWith(Credential::User(user_id(user).as_str().into()), Box::new(options))
    }

    pub(super) fn end_session(&self, which: u8) -> ClientMessage {
        let name =
            |entry: &SessionRecord| if which.is_multiple_of(2) { entry.session } else { entry.slot.first_session() };
        let sessions: Vec<_> = self.store.records.values().flat_map(UserRecord::sessions).map(name).collect();
        let session = sessions.get(usize::from(which) % sessions.len().max(1));
        ClientMessage::EndSession(session.copied().unwrap_or_else(|| self.node().session(0)))
    }

    pub(super) fn verify(&mut self, credential: &Credential) -> Result<Identity, CredentialError> {
        let identity = self.identify(credential)?;
        if matches!(credential, Credential::Text(_)) {
            return Ok(identity);
        }
        self.tokens += 1;
        let mut random = [0; 32];
        random[..8].copy_from_slice(&self.tokens.to_be_bytes());
        Ok(Identity { resume_token: Some(ResumeToken::new(random)), ..identity })
    }

    fn identify(&self, credential: &Credential) -> Result<Identity, CredentialError> {
        let Credential::Token(token) = credential else {
            let text = credential.user().ok_or(CredentialError::NotText)?;
            return UserId::parse(text).map(Identity::for_user).map_err(CredentialError::UserId);
        };
        let malformed = CredentialError::Token(TokenError::Malformed);
        let [user, limit, expires] = token.split('|').collect::<Vec<_>>()[..] else { return Err(malformed) };
        let user = UserId::parse(user).map_err(CredentialError::UserId)?;
        let limit = limit.parse().ok().map(|slots: u32| SlotLimit::new(slots % (Self::MAX_CLAIM + 1)).expect("few"));
        let expires = expires.parse().map(UnixSeconds::from_unix_seconds).map_err(|_| malformed)?;
        if self.time_of(expires) <= self.now {
            return Err(CredentialError::Token(TokenError::Expired));
        }
        Ok(Identity { limit, expires: Some(expires), ..Identity::for_user(user) })
    }
}
