//! The form in which user ids count: which spellings are the same user.
//!
//! It is applied once, where an id comes in: from a credential or from an operator. Behind that, ids are compared byte for
//! byte.

use std::borrow::Cow;
use std::fmt;

use clap::ValueEnum;
use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation as _;
use precis_profiles::precis_core::{self, CodepointInfo};
use session_core::{UserId, UserIdError};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// The form in which user ids count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum UserIdForm {
    /// Every byte counts. `zoe` and `Zoe` are two users.
    #[default]
    Exact,
    /// Unicode normalisation form C: an accented letter is the same in both of its encodings.
    Nfc,
    /// The profile `UsernameCaseMapped` of RFC 8265: also the same in capitals and in letters of full width. Refuses spaces
    /// and most symbols.
    Precis,
}

impl UserIdForm {
    /// How many bytes longer than allowed an id may be before it is mapped. No mapping makes one this much shorter.
    const MAX_UNMAPPED_BYTES: usize = 4 * UserId::MAX_BYTES;

    /// The user that this spelling names.
    ///
    /// # Errors
    /// The spelling, or what it maps to, is no valid id.
    pub fn parse(self, id: &str) -> Result<UserId, UserIdError> {
        let mapped = match self {
            Self::Exact => Cow::Borrowed(id),
            Self::Nfc | Self::Precis if id.len() > Self::MAX_UNMAPPED_BYTES => return Err(UserIdError::TooLong),
            Self::Nfc => nfc(id),
            Self::Precis if id.is_empty() || id.chars().any(char::is_control) => Cow::Borrowed(id),
            Self::Precis => precis(id).map_err(|_| UserIdError::NotUsername)?.into(),
        };
        UserId::parse(&mapped)
    }

    /// Why [`parse`](Self::parse) refuses this spelling, for an operator.
    #[must_use]
    pub fn describe_refusal(self, id: &str, error: UserIdError) -> String {
        match (self, error) {
            (Self::Precis, UserIdError::NotUsername) => {
                let reason = precis(id).err().unwrap_or(NotUsername::Unstable);
                format!("{}: {reason}; user_id_form is precis", error.message())
            }
            (
                Self::Exact | Self::Nfc | Self::Precis,
                UserIdError::Empty | UserIdError::TooLong | UserIdError::ControlCharacter | UserIdError::NotUsername,
            ) => error.message().into(),
        }
    }
}

/// As the configuration names it.
impl fmt::Display for UserIdForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Nfc => "nfc",
            Self::Precis => "precis",
        })
    }
}

fn nfc(id: &str) -> Cow<'_, str> {
    if is_nfc(id) { Cow::Borrowed(id) } else { Cow::Owned(id.nfc().collect()) }
}

/// Why a spelling is no username.
#[derive(Debug, PartialEq, Eq)]
enum NotUsername {
    Character(char, usize),
    Direction,
    Unstable,
}

impl fmt::Display for NotUsername {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(character, position) => {
                let code = u32::from(*character);
                write!(f, "the character U+{code:04X} at position {} is not allowed", position + 1)
            }
            Self::Direction => f.write_str("it mixes letters that are written in different directions"),
            Self::Unstable => f.write_str("it has no stable form"),
        }
    }
}

/// The id mapped by `UsernameCaseMapped` of RFC 8265.
fn precis(id: &str) -> Result<String, NotUsername> {
    /// RFC 8264 §7: a result that a further application changes is applied to again, up to three times.
    const MORE_TIMES: usize = 3;

    let enforce = |id: &str| {
        UsernameCaseMapped::enforce(id.to_owned()).map(Cow::into_owned).map_err(|error| match error {
            precis_core::Error::BadCodepoint(CodepointInfo { cp, position, .. }) => {
                NotUsername::Character(char::from_u32(cp).unwrap_or(char::REPLACEMENT_CHARACTER), position)
            }
            precis_core::Error::Invalid => NotUsername::Direction,
            precis_core::Error::Unexpected(_) => NotUsername::Unstable,
        })
    };
    let mut mapped = enforce(id)?;
    for _ in 0..MORE_TIMES {
        let again = enforce(&mapped)?;
        if again == mapped {
            return Ok(mapped);
        }
        mapped = again;
    }
    Err(NotUsername::Unstable)
}

/// Other spellings that people may take for this id: a bounded number, without the id itself.
#[must_use]
pub fn look_alikes(id: &UserId) -> Vec<UserId> {
    let id = id.as_str();
    let trimmed = id.trim();
    let spellings = [
        trimmed.to_owned(),
        format!("{trimmed} "),
        format!(" {trimmed}"),
        trimmed.split_whitespace().collect::<Vec<_>>().join(" "),
        id.nfc().collect(),
        id.nfd().collect(),
        id.nfkc().collect(),
        trimmed.nfkc().collect::<String>().to_lowercase().nfc().collect(),
        id.to_lowercase(),
        id.to_uppercase(),
        capitalised(id),
        id.chars().map(full_width).collect(),
        precis(trimmed).unwrap_or_default(),
    ];
    let mut others: Vec<_> = spellings.iter().filter(|other| *other != id).collect();
    others.sort();
    others.dedup();
    others.into_iter().filter_map(|other| UserId::parse(other).ok()).collect()
}

fn capitalised(id: &str) -> String {
    let mut characters = id.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The letter, digit or sign of ASCII in the full width of East Asian text.
fn full_width(character: char) -> char {
    const DISTANCE: u32 = 0xFEE0;
    if character.is_ascii_graphic() {
        char::from_u32(u32::from(character) + DISTANCE).unwrap_or(character)
    } else {
        character
    }
}

#[cfg(test)]
mod tests {
    use UserIdForm::{Exact, Nfc, Precis};

    use super::*;

    fn parse(form: UserIdForm, id: &str) -> Result<String, UserIdError> {
        form.parse(id).map(|user| user.as_str().to_owned())
    }

    #[test]
    fn form_decides_which_spellings_are_one_user() {
        const COMPOSED: &str = "zo\u{e9}";
        const DECOMPOSED: &str = "zoe\u{301}";
        const FULL_WIDTH: &str = "\u{ff3a}\u{ff4f}\u{ff45}";
        for (form, spelling, user) in [
            (Exact, DECOMPOSED, DECOMPOSED),
            (Exact, "Zoe ", "Zoe "),
            (Nfc, DECOMPOSED, COMPOSED),
            (Nfc, COMPOSED, COMPOSED),
            (Nfc, "Zoe ", "Zoe "),
            (Nfc, FULL_WIDTH, FULL_WIDTH),
            (Precis, DECOMPOSED, COMPOSED),
            (Precis, "ZOE", "zoe"),
            (Precis, FULL_WIDTH, "zoe"),
            (Precis, "Zoe.B-7@example.com", "zoe.b-7@example.com"),
            (Precis, "\u{391}\u{3a3}\u{3a9}", "\u{3b1}\u{3c3}\u{3c9}"),
        ] {
            assert_eq!(parse(form, spelling).as_deref(), Ok(user), "{form} {spelling}");
            assert_eq!(parse(form, user).as_deref(), Ok(user), "mapped again it stays: {form} {spelling}");
        }
    }

    #[test]
    fn precis_refuses_what_is_no_username() {
        for (id, reason) in [
            ("zoe ", "the character U+0020 at position 4 is not allowed"),
            ("zo\u{200b}e", "the character U+200B at position 3 is not allowed"),
            ("\u{2665}", "the character U+2665 at position 1 is not allowed"),
            ("a\u{5d0}", "it mixes letters that are written in different directions"),
        ] {
            assert_eq!(parse(Precis, id), Err(UserIdError::NotUsername), "{id}");
            let message = Precis.describe_refusal(id, UserIdError::NotUsername);
            assert!(message.contains(reason), "{message}");
            assert!(parse(Nfc, id).is_ok() && parse(Exact, id).is_ok(), "{id}");
        }
        for form in [Exact, Nfc, Precis] {
            assert_eq!(parse(form, ""), Err(UserIdError::Empty));
            assert_eq!(parse(form, "a\nb"), Err(UserIdError::ControlCharacter));
        }
    }

    #[test]
    fn bound_holds_after_mapping() {
        let full_width = "\u{ff41}".repeat(256);
        assert_eq!(parse(Exact, &full_width), Err(UserIdError::TooLong));
        assert_eq!(parse(Precis, &full_width).map(|id| id.len()), Ok(256));
        assert_eq!(parse(Precis, &"\u{ff41}".repeat(257)), Err(UserIdError::TooLong));
        assert_eq!(parse(Nfc, &"e\u{301}".repeat(128)).map(|id| id.len()), Ok(256));
        // It grows: three characters instead of one.
        assert_eq!(parse(Nfc, &"\u{fb2c}".repeat(85)), Err(UserIdError::TooLong));
        for form in [Nfc, Precis] {
            assert_eq!(parse(form, &"a".repeat(1 << 20)), Err(UserIdError::TooLong));
        }
    }

    /// Every third character, alone and after a letter.
    #[test]
    fn mapped_id_maps_to_itself() {
        // Beyond the first plane there is little to map: capitals of two old scripts, and compatible ideographs.
        for character in ('\u{1}'..'\u{1e944}').chain('\u{2f800}'..'\u{2fa20}').step_by(3) {
            for text in [format!("{character}"), format!("a{character}")] {
                for form in [Nfc, Precis] {
                    if let Ok(mapped) = form.parse(&text) {
                        assert_eq!(form.parse(mapped.as_str()).as_ref(), Ok(&mapped), "{form} {text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn look_alikes_are_few_and_different() {
        let others = |id: &str| -> Vec<_> {
            look_alikes(&UserId::parse(id).unwrap()).iter().map(|user| user.as_str().to_owned()).collect()
        };
        for (id, other) in [
            ("zoe", "zoe "),
            ("zoe ", "zoe"),
            ("zoe", "Zoe"),
            ("zoe", "ZOE"),
            ("Zoe", "zoe"),
            ("zo\u{e9}", "zoe\u{301}"),
            ("zoe\u{301}", "zo\u{e9}"),
            ("zoe", "\u{ff5a}\u{ff4f}\u{ff45}"),
            ("\u{ff3a}\u{ff4f}\u{ff45}", "zoe"),
        ] {
            let others = others(id);
            assert!(others.iter().any(|found| found == other), "{id:?}: {others:?}");
            assert!(others.len() <= 13 && !others.iter().any(|found| found == id), "{others:?}");
        }
        assert!(others(" ").is_empty() || !others(" ").contains(&" ".to_owned()));
    }
}
