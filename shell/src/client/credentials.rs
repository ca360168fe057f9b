//! What a client authenticates with: a user id or a token.

use std::env::{self, VarError};
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use session_core::protocol::Credential;

use super::Error;
use crate::runtime::bare_token::bare_token;

/// A user id or a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The user's id, for a server with open authentication.
    User(String),
    /// A token that names the user, for a server that checks tokens.
    Token(Token),
}

/// A JSON Web Token in its compact form (RFC 7515 §7.1): three parts in base64url, with dots between them.
///
/// A token is a secret: `{:?}` shows only its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Credentials {
    pub(super) fn credential(&self) -> Credential {
        Credential::new(match self {
            Self::User(id) => id,
            Self::Token(Token(text)) => text,
        })
    }

    /// The credential for an AUTHENTICATE object, which tells a user id from a token.
    pub(super) fn detailed_credential(&self) -> Credential {
        match self {
            Self::User(id) => Credential::User(id.as_str().into()),
            Self::Token(Token(text)) => Credential::Token(text.clone()),
        }
    }

    /// Whether `user` is the text of the token: then the server has used the token as a name.
    pub(super) fn is_token_text(&self, user: &str) -> bool {
        match self {
            Self::User(_) => false,
            Self::Token(Token(text)) => user == &**text,
        }
    }

    /// The user's id, if the client knows it before the server names the user.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::User(id) => Some(id),
            Self::Token(_) => None,
        }
    }
}

impl Token {
    /// The longest token, in bytes. A server may accept less.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// The environment variable for a token.
    pub const VARIABLE: &str = "SESSIONS_TOKEN";

    /// The token in [`Token::VARIABLE`], if that is set.
    ///
    /// # Errors
    /// [`Error::BadToken`]: it has no valid token.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        let bad = |reason: &str| Error::BadToken { from: Self::VARIABLE.into(), reason: reason.into() };
        match env::var(Self::VARIABLE) {
            Ok(text) => parse_token(bare_token(&text)).map(Some).map_err(bad),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(bad("it is not UTF-8")),
        }
    }

    /// Reads a token from a file, or from standard input if the file is `-`. White space around it, and `Bearer` before it,
    /// do not count.
    ///
    /// # Errors
    /// [`Error::BadToken`]: the file cannot be read, or has no valid token.
    pub fn read(file: &str) -> Result<Self, Error> {
        let (from, read) = match file {
            "-" => ("standard input", read_text(&mut io::stdin())),
            _ => (file, std::fs::File::open(file).and_then(|mut file| read_text(&mut file))),
        };
        let read = read.map_err(|error| error.to_string());
        read.and_then(|text| parse_token(bare_token(&text)).map_err(Into::into))
            .map_err(|reason| Error::BadToken { from: from.into(), reason })
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse_token(text).map_err(|reason| Error::BadToken { from: "what was given".into(), reason: reason.into() })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

fn read_text(from: &mut dyn Read) -> io::Result<String> {
    /// Room for whitespace around the token.
    const SPACE_BYTES: u64 = 1024;

    let mut text = String::new();
    from.take(Token::MAX_BYTES as u64 + SPACE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Checks only the form. This keeps a key or password that was given by mistake from being sent.
fn parse_token(text: &str) -> Result<Token, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > Token::MAX_BYTES {
        return Err("it is longer than 16384 bytes");
    }
    let is_base64 =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) && !part.is_empty();
    if text.split('.').count() != 3 || !text.split('.').all(is_base64) {
        return Err("it is not three parts in base64url with dots between them");
    }
    Ok(Token(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_bare_and_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token").display().to_string();
        for text in ["head.Pay-load_1.seal", " head.Pay-load_1.seal\r\n\n", "Bearer  head.Pay-load_1.seal \n"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Token::read(&file).unwrap(), "head.Pay-load_1.seal".parse().unwrap(), "{text:?}");
        }
        let token = Token::read(&file).unwrap();
        let credentials = Credentials::Token(token);
        assert_eq!((credentials.credential(), credentials.user()), (Credential::new("head.Pay-load_1.seal"), None));
        assert_eq!(format!("{credentials:?}"), "Token(Token(20 bytes))");
    }

    #[test]
    fn bad_token_error_never_quotes_the_text() {
        let long = format!("a.{}.c", "b".repeat(Token::MAX_BYTES - 3));
        for (text, expected) in [
            ("", "it is empty"),
            (&*long, "longer than 16384 bytes"),
            ("secret", "not three parts"),
            ("se.cret", "not three parts"),
            ("se.cr.e.t", "not three parts"),
            ("se..cret", "not three parts"),
            ("s.ecr.et=", "not three parts"),
            ("Bearer s.ecr.et", "not three parts"),
            ("s.ecr.et\n", "not three parts"),
        ] {
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("ecr"), "{error}");
        }
        assert!(long[..Token::MAX_BYTES].parse::<Token>().is_err(), "its last part is missing");
        assert!(format!("a.{}.c", "b".repeat(Token::MAX_BYTES - 4)).parse::<Token>().is_ok());
    }

    #[test]
    fn bad_token_error_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token").display().to_string();
        let refused = || Token::read(&file).unwrap_err().to_string();
        assert!(refused().starts_with(&format!("no token in {file}: No such file")), "{}", refused());
        std::fs::write(&file, "\n").unwrap();
        assert!(refused().starts_with(&format!("no token in {file}: it is empty; ")), "{}", refused());
        // Only the start of the file is read.
        std::fs::write(&file, " ".repeat(1024 * 1024) + "a.b.c").unwrap();
        assert!(refused().starts_with(&format!("no token in {file}: it is empty; ")), "{}", refused());
    }
}
