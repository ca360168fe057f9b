//! A key of the configuration, and the macro that makes the table of keys.

use std::borrow::Cow;
use std::fmt;

use clap::builder::PossibleValue;

use super::value::{InvalidValue, Redact, Shape, ValueReader};

/// A key of the configuration.
pub struct Key {
    /// The name in the file, such as `auth_timeout`.
    pub name: &'static str,
    /// The flag without its hyphens, such as `auth-timeout`.
    pub flag: String,
    /// The environment variable, such as `SESSIONS_AUTH_TIMEOUT`.
    pub variable: String,
    /// The heading in the help.
    pub group: &'static str,
    /// The description, with bounds.
    pub help: &'static str,
    /// The placeholder for a value in the help.
    pub placeholder: &'static str,
    /// The default, as text. Owned if it depends on this machine; `help` then explains it.
    pub default: Cow<'static, str>,
    /// When a change takes effect.
    pub applies: ReloadMode,
    /// The syntax of its value.
    pub shape: Shape,
    pub(super) choices: Vec<PossibleValue>,
    redact: Option<Redact>,
    check: Box<Check>,
}

type Check = dyn Fn(&[String]) -> Result<(), Vec<InvalidValue>> + Send + Sync;

/// When a change of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadMode {
    /// When the server reloads the configuration.
    AtOnce,
    /// When the server restarts.
    AfterRestart,
}

/// An entry of the table.
pub(super) struct KeySpec<T> {
    pub(super) name: &'static str,
    pub(super) group: &'static str,
    pub(super) help: &'static str,
    pub(super) reader: ValueReader<T>,
    pub(super) placeholder: &'static str,
    pub(super) default: Cow<'static, str>,
    pub(super) applies: ReloadMode,
}

impl Key {
    pub(super) fn new<T: 'static>(spec: KeySpec<T>) -> Self {
        let KeySpec { name, group, help, reader, placeholder, default, applies } = spec;
        Self {
            name,
            flag: name.replace('_', "-"),
            variable: format!("SESSIONS_{}", name.to_uppercase()),
            group,
            help,
            placeholder,
            default,
            applies,
            shape: reader.shape,
            choices: reader.choices.clone(),
            redact: reader.redact,
            check: Box::new(move |texts| reader.read(texts).map(drop)),
        }
    }

    /// Splits the text of a list at its commas. Any other text stays whole.
    #[must_use]
    pub fn split(&self, text: &str) -> Vec<String> {
        match self.shape {
            Shape::One | Shape::Switch => vec![text.into()],
            Shape::List if text.trim().is_empty() => Vec::new(),
            Shape::List => text.split(',').map(|item| item.trim().into()).collect(),
        }
    }

    /// The text as it may be shown: without the secret that it may hold.
    #[must_use]
    pub fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.redact.map_or(Cow::Borrowed(text), |redact| redact(text).into())
    }

    /// Whether its text may hold a secret.
    pub(super) fn is_redacted(&self) -> bool {
        self.redact.is_some()
    }

    /// Checks that these texts are a valid value.
    ///
    /// # Errors
    /// Every invalid text.
    pub fn check(&self, texts: &[String]) -> Result<(), Vec<InvalidValue>> {
        (self.check)(texts)
    }

    /// The default, split into its texts.
    pub(super) fn default_texts(&self) -> Vec<String> {
        self.split(&self.default)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}

/// Two keys are equal if they have the same name.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

/// Makes a struct with a public field for each entry, and the list of its keys. An entry is
///
/// ```text
/// /// The description, with bounds. One paragraph, without a full stop at its end.
/// name: Type { reader: READER, value: "PLACEHOLDER", default: "TEXT", applies: AtOnce }
/// ```
macro_rules! settings {
    (
        $(#[$about:meta])*
        $visibility:vis struct $Config:ident;
        $(
            $group:literal {
                $(
                    $(#[doc = $help:literal])+
                    $field:ident: $type:ty {
                        reader: $reader:expr,
                        value: $placeholder:literal,
                        default: $default:expr,
                        applies: $applies:ident $(,)?
                    }
                )+
            }
        )+
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        $visibility struct $Config {
            $($(
                $(#[doc = $help])+
                $visibility $field: $type,
            )+)+
        }

        impl $Config {
            /// Every key, in the order of the fields.
            #[must_use]
            $visibility fn keys() -> &'static [$crate::config::Key] {
                use $crate::config::key::{ReloadMode, KeySpec, Key};
                static KEYS: std::sync::LazyLock<Vec<Key>> = std::sync::LazyLock::new(|| {
                    vec![$($(Key::new(KeySpec::<$type> {
                        name: stringify!($field),
                        group: $group,
                        help: concat!($($help),+).trim_ascii(),
                        reader: $reader,
                        placeholder: $placeholder,
                        default: $default.into(),
                        applies: ReloadMode::$applies,
                    }),)+)+]
                });
                &KEYS
            }

            /// Reads the texts of every key, in the order of the fields. Returns each invalid value with its key.
            pub(super) fn read(
                texts: &[&[String]],
            ) -> Result<Self, Vec<(&'static $crate::config::Key, $crate::config::value::InvalidValue)>> {
                use $crate::config::value::ValueReader;
                let (mut keys, mut texts) = (Self::keys().iter(), texts.iter());
                let mut invalid_values = Vec::new();
                // One expression: a key may have the name of a function that reads another.
                let values = ($($({
                    let key = keys.next().expect("there is a key for each field");
                    let reader: ValueReader<$type> = $reader;
                    reader
                        .read(texts.next().copied().unwrap_or_default())
                        .map_err(|invalid| invalid_values.extend(invalid.into_iter().map(|invalid| (key, invalid))))
                },)+)+);
                match values {
                    ($($(Ok($field),)+)+) => Ok(Self { $($($field,)+)+ }),
                    _ => Err(invalid_values),
                }
            }

            /// The names of the keys whose values differ.
            pub(super) fn different_keys(&self, other: &Self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $($(
                    if self.$field != other.$field {
                        names.push(stringify!($field));
                    }
                )+)+
                names
            }
        }
    };
}

pub(super) use settings;

#[cfg(test)]
mod tests;
