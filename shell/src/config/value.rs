//! Readers that turn the text of a key into its value, and ways to combine them.
//!
//! The file, the variables and the flags all give text. The key's reader reads it, so bounds and error texts are the same
//! for all of them.
//!
//! ```
//! use std::time::Duration;
//! use shell::config::value::{ValueReader, duration, list, number, optional};
//!
//! let ports: ValueReader<Vec<u16>> = list(number(1..=65_535));
//! assert_eq!(ports.read(&["80".into(), "443".into()]).unwrap(), [80, 443]);
//! let timeout: ValueReader<Option<Duration>> = optional(duration(Duration::from_secs(1)..=Duration::from_secs(60)));
//! assert_eq!(timeout.read(&["".into()]).unwrap(), None);
//! assert!(timeout.read(&["2m".into()]).is_err());
//! ```

use std::fmt::{self, Display};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::slice;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::runtime::duration::duration_within;

/// Reads the text, or the texts, of a key as a `T`.
pub struct ValueReader<T> {
    pub(super) shape: Shape,
    /// The possible values, if there is a fixed set.
    pub(super) choices: Vec<PossibleValue>,
    /// How its text is shown, if it can hold a secret.
    pub(super) redact: Option<Redact>,
    read: Box<Read<T>>,
}

/// The form of a text that may be shown: in the log, in errors and in the printed configuration.
pub(super) type Redact = fn(&str) -> String;

type Read<T> = dyn Fn(&[String]) -> Result<T, Vec<InvalidValue>> + Send + Sync;

/// How many texts a key holds, and their syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One text, which may be empty.
    One,
    /// `true` or `false`. As a flag it needs no value.
    Switch,
    /// Any number of texts: in one text with commas between, or as an array in the file.
    List,
}

/// A text that a reader does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidValue {
    /// The text.
    pub text: String,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

impl<T> ValueReader<T> {
    /// Reads the texts of a key: exactly one, unless it is a list.
    ///
    /// # Errors
    /// Every invalid text.
    pub fn read(&self, texts: &[String]) -> Result<T, Vec<InvalidValue>> {
        (self.read)(texts)
    }
}

impl<T> fmt::Debug for ValueReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueReader").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// One text, read by `parse`. Its error is the reason, for the user.
pub fn one<T>(parse: impl Fn(&str) -> Result<T, String> + Send + Sync + 'static) -> ValueReader<T> {
    let read = move |texts: &[String]| {
        let [text] = texts else { return Err(invalid_value("", "expected one value")) };
        parse(text).map_err(|reason| invalid_value(text, reason))
    };
    ValueReader { shape: Shape::One, choices: Vec::new(), redact: None, read: Box::new(read) }
}

/// A text that is not empty.
#[must_use]
pub fn text() -> ValueReader<String> {
    one(|text| if text.is_empty() { Err("it must not be empty".into()) } else { Ok(text.to_owned()) })
}

/// A file or a directory, which need not exist. A relative path starts at the directory in which the server is started.
#[must_use]
pub fn path() -> ValueReader<PathBuf> {
    one(|text| if text.is_empty() { Err("it must not be empty".into()) } else { Ok(text.into()) })
}

/// A whole number within these bounds.
pub fn number<T>(range: RangeInclusive<T>) -> ValueReader<T>
where
    T: FromStr + PartialOrd + Display + Send + Sync + 'static,
{
    one(move |text| {
        let (min, max) = (range.start(), range.end());
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            // A number too large for the type gets the same message as one out of range.
            _ if is_whole_number(text) => Err(format!("{text} is not from {min} to {max}")),
            Ok(_) | Err(_) => Err(format!("expected a whole number from {min} to {max}")),
        }
    })
}

fn is_whole_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A duration within these bounds, written as in 10s, 500ms or 2m.
#[must_use]
pub fn duration(range: RangeInclusive<Duration>) -> ValueReader<Duration> {
    one(move |text| duration_within(text, *range.start(), *range.end()))
}

/// An upper bound, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// No bound.
    Unlimited,
    /// At most this number.
    AtMost(NonZeroU32),
}

impl Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::AtMost(max) => max.fmt(f),
        }
    }
}

/// `unlimited`, or a whole number within these bounds. 0 is never accepted.
#[must_use]
pub fn bound(range: RangeInclusive<u32>) -> ValueReader<Bound> {
    let number = number(range);
    one(move |text| {
        if text == "unlimited" {
            return Ok(Bound::Unlimited);
        }
        let max = number.read(&[text.to_owned()]).map_err(|invalid_values| {
            let reasons: Vec<_> = invalid_values.into_iter().map(|invalid| invalid.reason).collect();
            format!("{}; or write `unlimited`", reasons.join(", "))
        })?;
        NonZeroU32::new(max).map(Bound::AtMost).ok_or_else(|| "the minimum is 1; or write `unlimited`".into())
    })
}

/// A variant of an enum, by its name in clap.
#[must_use]
pub fn choice<T: ValueEnum + Send + Sync + 'static>() -> ValueReader<T> {
    choice_of(T::value_variants().iter().filter_map(|value| Some((value.clone(), value.to_possible_value()?))))
}

/// One of these values, by its name.
pub fn choice_of<T>(values: impl IntoIterator<Item = (T, PossibleValue)>) -> ValueReader<T>
where
    T: Clone + Send + Sync + 'static,
{
    let values: Vec<_> = values.into_iter().collect();
    let choices = values.iter().map(|(_, name)| name.clone()).collect();
    let parse = move |text: &str| {
        let named = values.iter().find(|(_, name)| name.matches(text, false));
        named.map(|(value, _)| value.clone()).ok_or_else(|| {
            let names: Vec<_> = values.iter().map(|(_, name)| name.get_name()).collect();
            format!("it must be one of {}", names.join(", "))
        })
    };
    ValueReader { choices, ..one(parse) }
}

/// `true` or `false`.
#[must_use]
pub fn switch() -> ValueReader<bool> {
    let parse = |text: &str| text.parse().map_err(|_| "it must be true or false".to_owned());
    let choices = ["true", "false"].map(PossibleValue::new).into();
    ValueReader { shape: Shape::Switch, choices, ..one(parse) }
}

/// A value whose text can hold a secret. Whatever shows the text shows what `redact` makes of it, whether it is valid or not.
pub fn redacted<T: 'static>(redact: fn(&str) -> String, reader: ValueReader<T>) -> ValueReader<T> {
    let ValueReader { shape, choices, redact: _, read } = reader;
    let read = move |texts: &[String]| {
        read(texts).map_err(|invalid_values| {
            let hide = |InvalidValue { text, reason }| InvalidValue { text: redact(&text), reason };
            invalid_values.into_iter().map(hide).collect()
        })
    };
    ValueReader { shape, choices, redact: Some(redact), read: Box::new(read) }
}

/// A value, or none if the text is empty.
pub fn optional<T: 'static>(reader: ValueReader<T>) -> ValueReader<Option<T>> {
    let ValueReader { shape, choices, redact, read } = reader;
    let read = move |texts: &[String]| match texts {
        [text] if text.is_empty() => Ok(None),
        _ => read(texts).map(Some),
    };
    ValueReader { shape, choices, redact, read: Box::new(read) }
}

/// A value, or none if the text is `auto`: then the server chooses.
pub fn auto_or<T: 'static>(reader: ValueReader<T>) -> ValueReader<Option<T>> {
    let ValueReader { shape, choices, redact, read } = reader;
    let read = move |texts: &[String]| match texts {
        [text] if text == "auto" => Ok(None),
        _ => read(texts).map(Some).map_err(|invalid_values| {
            let or_auto = |InvalidValue { text, reason }| InvalidValue { text, reason: reason + ", or `auto`" };
            invalid_values.into_iter().map(or_auto).collect()
        }),
    };
    ValueReader { shape, choices, redact, read: Box::new(read) }
}

/// Any number of values, including none.
pub fn list<T: 'static>(item: ValueReader<T>) -> ValueReader<Vec<T>> {
    let ValueReader { shape: _, choices, redact, read: read_one } = item;
    let read = move |texts: &[String]| {
        let (mut values, mut invalid_values) = (Vec::new(), Vec::new());
        for text in texts {
            match read_one(slice::from_ref(text)) {
                Ok(value) => values.push(value),
                Err(invalid) => invalid_values.extend(invalid),
            }
        }
        if invalid_values.is_empty() { Ok(values) } else { Err(invalid_values) }
    };
    ValueReader { shape: Shape::List, choices, redact, read: Box::new(read) }
}

/// A list that is not empty.
pub fn at_least_one<T: 'static>(list: ValueReader<Vec<T>>) -> ValueReader<Vec<T>> {
    let ValueReader { shape, choices, redact, read } = list;
    let read = move |texts: &[String]| match texts {
        [] => Err(invalid_value("", "at least one must be given")),
        _ => read(texts),
    };
    ValueReader { shape, choices, redact, read: Box::new(read) }
}

fn invalid_value(text: &str, reason: impl Into<String>) -> Vec<InvalidValue> {
    vec![InvalidValue { text: text.into(), reason: reason.into() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(reader: &ValueReader<T>, text: &str) -> Result<T, String> {
        reader.read(&[text.into()]).map_err(|invalid_values| {
            let [invalid] = &invalid_values[..] else { panic!("expected one invalid value") };
            assert_eq!(invalid.text, text);
            invalid.reason.clone()
        })
    }

    #[test]
    fn number_is_whole_and_within_its_bounds() {
        let reader = number(2..=300_u16);
        assert_eq!(["2", "300", "+7"].map(|text| read(&reader, text).unwrap()), [2, 300, 7]);
        for text in ["1", "301", "-5", "99999999999999999999"] {
            assert_eq!(read(&reader, text).unwrap_err(), format!("{text} is not from 2 to 300"));
        }
        for text in ["", "-", "3.0", "many", "1e2", " 5"] {
            assert_eq!(read(&reader, text).unwrap_err(), "expected a whole number from 2 to 300", "{text:?}");
        }
    }

    #[test]
    fn bound_may_be_unlimited() {
        let reader = bound(0..=10);
        assert_eq!(read(&reader, "unlimited").unwrap(), Bound::Unlimited);
        assert_eq!(read(&reader, "10").unwrap(), Bound::AtMost(NonZeroU32::new(10).unwrap()));
        assert_eq!(["unlimited", "10"].map(|text| read(&reader, text).unwrap().to_string()), ["unlimited", "10"]);
        assert_eq!(read(&reader, "11").unwrap_err(), "11 is not from 0 to 10; or write `unlimited`");
        assert_eq!(read(&reader, "0").unwrap_err(), "the minimum is 1; or write `unlimited`");
    }

    #[test]
    fn choice_lists_its_values() {
        use crate::runtime::log::LogFormat;
        let reader = choice::<LogFormat>();
        assert_eq!(read(&reader, "json").unwrap(), LogFormat::Json);
        assert_eq!(read(&reader, "xml").unwrap_err(), "it must be one of text, json");
        let names: Vec<_> = reader.choices.iter().map(PossibleValue::get_name).collect();
        assert_eq!(names, ["text", "json"]);
    }

    #[test]
    fn switch_is_true_or_false() {
        let reader = switch();
        assert_eq!((read(&reader, "true").unwrap(), read(&reader, "false").unwrap()), (true, false));
        for text in ["yes", "1", "TRUE", ""] {
            assert_eq!(read(&reader, text).unwrap_err(), "it must be true or false");
        }
    }

    #[test]
    fn empty_text_needs_an_optional_value() {
        assert_eq!(read(&optional(path()), "").unwrap(), None);
        assert_eq!(read(&optional(path()), "there").unwrap(), Some(PathBuf::from("there")));
        assert_eq!(read(&path(), "").unwrap_err(), "it must not be empty");
        assert_eq!(read(&text(), "").unwrap_err(), "it must not be empty");
        assert_eq!(read(&text(), "ada").unwrap(), "ada");
    }

    #[test]
    fn value_may_be_left_to_the_server() {
        let reader = auto_or(bound(1..=10));
        assert_eq!(read(&reader, "auto").unwrap(), None);
        assert_eq!(read(&reader, "unlimited").unwrap(), Some(Bound::Unlimited));
        assert_eq!(read(&reader, "11").unwrap_err(), "11 is not from 1 to 10; or write `unlimited`, or `auto`");
    }

    #[test]
    fn redacted_text_is_in_no_error() {
        let hide = |text: &str| text.replace("secret", "***");
        let reader = list(optional(redacted(hide, number(1..=9_u8))));
        let invalid_values = reader.read(&["secret0".into(), "5".into()]).unwrap_err();
        assert_eq!(invalid_values[0].text, "***0");
        assert_eq!(reader.redact.unwrap()("secret"), "***");
        assert!(number(1..=9_u8).redact.is_none());
    }

    #[test]
    fn list_reports_every_invalid_value() {
        let reader = list(number(1..=9_u8));
        let texts = |texts: &[&str]| -> Vec<_> { texts.iter().map(|&text| text.to_owned()).collect() };
        assert_eq!(reader.read(&texts(&["1", "9"])).unwrap(), [1, 9]);
        assert!(reader.read(&[]).unwrap().is_empty());
        let invalid_values = reader.read(&texts(&["0", "5", "x"])).unwrap_err();
        let invalid_texts: Vec<_> = invalid_values.iter().map(|invalid| &*invalid.text).collect();
        assert_eq!(invalid_texts, ["0", "x"]);

        let reader = at_least_one(reader);
        assert_eq!(reader.read(&texts(&["1"])).unwrap(), [1]);
        assert_eq!(reader.read(&[]).unwrap_err(), invalid_value("", "at least one must be given"));
        assert_eq!(one(|_| Ok(())).read(&texts(&["a", "b"])).unwrap_err(), invalid_value("", "expected one value"));
    }
}
