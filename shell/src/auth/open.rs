//! Open authentication: the credential is the user id.

use session_core::protocol::{Credential, CredentialError};
use session_core::session::Identity;

use crate::auth::authenticator::{Authenticator, InvalidCredential};
use crate::auth::claims::looks_like_token;
use crate::runtime::user_id_form::UserIdForm;

/// Open authentication: the credential is the user id, and nothing proves it.
///
/// It rejects tokens. Used as a user id, a token would be logged, stored and shown, and a reader could use it elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAuthenticator {
    /// The form in which ids count.
    pub user_id_form: UserIdForm,
}

impl Authenticator for OpenAuthenticator {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, InvalidCredential> {
        let id = match credential {
            Credential::Text(id) | Credential::User(id) => id,
            Credential::Token(_) => return Err(CredentialError::UnwantedToken.into()),
            Credential::None => return Err(CredentialError::NotText.into()),
        };
        if looks_like_token(id) {
            return Err(CredentialError::UnwantedToken.into());
        }
        let user = self.user_id_form.parse(id).map_err(CredentialError::UserId)?;
        Ok(Identity::for_user(user))
    }
}

#[cfg(test)]
mod tests {
    use session_core::UserId;

    use super::*;

    #[test]
    fn any_user_id_is_accepted_but_no_token() {
        // {"alg":"HS256"} . {"sub":"ada"} . a signature
        const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2VhbA";

        let open = OpenAuthenticator::default();
        let verify = |credential: &Credential| open.authenticate(credential).map_err(|invalid| invalid.error);
        for name in ["ada", "ada.b.c", "eyre.jane.2", "e30", "eyJhbGciOiJIUzI1NiJ9", "a.eyJhbGciOiJIUzI1NiJ9.b"] {
            assert_eq!(verify(&Credential::new(name)), Ok(Identity::for_user(UserId::parse(name).unwrap())));
        }
        let bearer = format!("Bearer {TOKEN}");
        let long = format!("{TOKEN}{}", "x".repeat(300));
        let lines = format!("\t{TOKEN}\r\n");
        let header = format!("Authorization: Bearer {TOKEN} ");
        let sealed = "eyJhbGciOiJkaXIifQ..aXY.dGV4dA.dGFn"; // Encrypted (RFC 7516): five parts.
        let quoted = format!("\"{TOKEN}\"");
        let followed = format!("token={TOKEN}; ada");
        for token in
            [TOKEN, &*bearer, &*long, &*lines, &*header, &*quoted, &*followed, sealed, &TOKEN[..TOKEN.len() - 6]]
        {
            assert_eq!(verify(&Credential::new(token)), Err(CredentialError::UnwantedToken), "{token}");
        }
        assert_eq!(verify(&Credential::Token("ada".into())), Err(CredentialError::UnwantedToken));
        assert_eq!(verify(&Credential::None), Err(CredentialError::NotText));
    }

    #[test]
    fn spellings_of_one_form_are_one_user() {
        let open = OpenAuthenticator { user_id_form: UserIdForm::Precis };
        let verify = |id: &str| open.authenticate(&Credential::new(id)).map_err(|invalid| invalid.error);
        let zoe = Ok(Identity::for_user(UserId::parse("zoe").unwrap()));
        assert_eq!((verify("ZOE"), verify("zoe")), (zoe.clone(), zoe));
        assert_eq!(verify("zoe "), Err(CredentialError::UserId(session_core::UserIdError::NotUsername)));
    }
}
