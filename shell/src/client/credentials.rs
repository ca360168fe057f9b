//! What a client shows to be let in.

use std::env::{self, VarError};
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use session_core::Credential;

use super::Error;

/// Who a client says it is, or what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The user's id, for a server that takes everybody's word. The server decides whether it is one.
    User(String),
    /// A token that says who the user is, for a server that checks.
    Token(Token),
}

/// A JSON Web Token in its compact form (RFC 7515 §7.1): three parts in base64url, with dots between them.
///
/// It is a secret, so it is never printed: `{:?}` shows its length alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Credentials {
    pub(super) fn credential(&self) -> Credential {
        Credential::new(match self {
            Self::User(id) => id,
            Self::Token(Token(text)) => text,
        })
    }

    /// The same for an object, which says what it has.
    pub(super) fn detailed_credential(&self) -> Credential {
        match self {
            Self::User(id) => Credential::User(id.as_str().into()),
            Self::Token(Token(text)) => Credential::Token(text.clone()),
        }
    }

    /// Whether a server that calls the user so has taken the token for a name.
    pub(super) fn is_token_text(&self, user: &str) -> bool {
        match self {
            Self::User(_) => false,
            Self::Token(Token(text)) => user == &**text,
        }
    }

    /// The user's id, where that is known before the server has said it.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::User(id) => Some(id),
            Self::Token(_) => None,
        }
    }
}

impl Token {
    /// The longest token, in bytes. A server may take less.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// The environment variable that a token can be in.
    pub const VARIABLE: &str = "SESSIONS_TOKEN";

    /// The token in [`Token::VARIABLE`], if that is set.
    ///
    /// # Errors
    /// [`Error::BadToken`]: it is none.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        let bad = |reason: &str| Error::BadToken { from: Self::VARIABLE.into(), reason: reason.into() };
        match env::var(Self::VARIABLE) {
            Ok(text) => parse_token(text.trim()).map(Some).map_err(bad),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(bad("it is not UTF-8")),
        }
    }

    /// The token in a file, or from standard input if the file is `-`, without the whitespace around it.
    ///
    /// # Errors
    /// [`Error::BadToken`]: it cannot be read, or is none.
    pub fn read(file: &str) -> Result<Self, Error> {
        let (from, read) = match file {
            "-" => ("standard input", read_text(&mut io::stdin())),
            _ => (file, std::fs::File::open(file).and_then(|mut file| read_text(&mut file))),
        };
        let read = read.map_err(|error| error.to_string());
        read.and_then(|text| parse_token(text.trim()).map_err(Into::into))
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
    /// The newline at the end, and what else people leave there.
    const SPACE_BYTES: u64 = 1024;

    let mut text = String::new();
    from.take(Token::MAX_BYTES as u64 + SPACE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Only the form is looked at: so a key or a password that was taken for a token stays here.
fn parse_token(text: &str) -> Result<Token, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > Token::MAX_BYTES {
        return Err("it is longer than 16384 bytes");
    }
    let is_base64 = |end_with_bye: &str| {
        end_with_bye.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !end_with_bye.is_empty()
    };
    if text.split('.').count() != 3 || !text.split('.').all(is_base64) {
        return Err("it is not three parts in base64url with dots between them");
    }
    Ok(Token(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_without_the_whitespace_around_it_and_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token").display().to_string();
        std::fs::write(&file, " head.Pay-load_1.seal\r\n\n").unwrap();
        let token = Token::read(&file).unwrap();
        assert_eq!(token, "head.Pay-load_1.seal".parse().unwrap());
        let credentials = Credentials::Token(token);
        assert_eq!((credentials.credential(), credentials.user()), (Credential::new("head.Pay-load_1.seal"), None));
        assert_eq!(format!("{credentials:?}"), "Token(Token(20 bytes))");
    }

    #[test]
    fn what_is_no_token_is_refused_in_words_that_do_not_have_it() {
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
    fn a_file_that_has_none_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token").display().to_string();
        let refused = || Token::read(&file).unwrap_err().to_string();
        assert!(refused().starts_with(&format!("no token in {file}: No such file")), "{}", refused());
        std::fs::write(&file, "\n").unwrap();
        assert!(refused().starts_with(&format!("no token in {file}: it is empty; ")), "{}", refused());
        // What is too far away is not looked for.
        std::fs::write(&file, " ".repeat(1024 * 1024) + "a.b.c").unwrap();
        assert!(refused().starts_with(&format!("no token in {file}: it is empty; ")), "{}", refused());
    }
}
