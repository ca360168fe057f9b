//! What is known of a key beside its type, and the macro that makes a table of them.

use std::borrow::Cow;
use std::fmt;

use clap::builder::PossibleValue;

use super::value::{InvalidValue, Shape, ValueReader};

/// A key of the configuration.
pub struct Key {
    /// As it is written in the file, `auth_timeout`.
    pub name: &'static str,
    /// The flag, without its hyphens, `auth-timeout`.
    pub flag: String,
    /// The environment variable, `SESSIONS_AUTH_TIMEOUT`.
    pub variable: String,
    /// What it is about, with others.
    pub group: &'static str,
    /// What it means, and its bounds.
    pub help: &'static str,
    /// What stands for a value in the help of its flag.
    pub placeholder: &'static str,
    /// What it is when it is not given. Owned if this machine decides, which the help then tells.
    pub default: Cow<'static, str>,
    /// When a change of it takes effect.
    pub applies: ReloadMode,
    /// How its value is written.
    pub shape: Shape,
    pub(super) choices: Vec<PossibleValue>,
    check: Box<Check>,
}

type Check = dyn Fn(&[String]) -> Result<(), Vec<InvalidValue>> + Send + Sync;

/// When a change of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadMode {
    /// When the configuration is read again.
    AtOnce,
    /// When the server is started again.
    AfterRestart,
}

/// An entry of the table, as it is written there.
pub(super) struct KeySpec<T> {
    pub(super) name: &'static str,
    pub(super) group: &'static str,
    pub(super) help: &'static str,
    pub(super) rule: ValueReader<T>,
    pub(super) placeholder: &'static str,
    pub(super) default: Cow<'static, str>,
    pub(super) applies: ReloadMode,
}

impl Key {
    pub(super) fn new<T: 'static>(entry: KeySpec<T>) -> Self {
        let KeySpec { name, group, help, rule, placeholder, default, applies } = entry;
        Self {
            name,
            flag: name.replace('_', "-"),
            variable: format!("SESSIONS_{}", name.to_uppercase()),
            group,
            help,
            placeholder,
            default,
            applies,
            shape: rule.shape,
            choices: rule.choices.clone(),
            check: Box::new(move |texts| rule.read(texts).map(drop)),
        }
    }

    /// The texts that one text stands for: itself, or for a list what is between its commas.
    #[must_use]
    pub fn split(&self, text: &str) -> Vec<String> {
        match self.shape {
            Shape::One | Shape::Switch => vec![text.into()],
            Shape::List if text.trim().is_empty() => Vec::new(),
            Shape::List => text.split(',').map(|item| item.trim().into()).collect(),
        }
    }

    /// Whether its rule takes these texts.
    ///
    /// # Errors
    /// With every text that is refused.
    pub fn check(&self, texts: &[String]) -> Result<(), Vec<InvalidValue>> {
        (self.check)(texts)
    }

    /// The texts of its default.
    pub(super) fn default_texts(&self) -> Vec<String> {
        self.split(&self.default)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}

/// Keys are told apart by their names.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

/// Makes a struct with a public field for each entry, and all that is known of it from there. An entry is
///
/// ```text
/// /// What it means, and its bounds. One paragraph, without a full stop at its end.
/// name: Type { rule: RULE, value: "PLACEHOLDER", default: "TEXT", applies: AtOnce }
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
                        rule: $rule:expr,
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
                        rule: $rule,
                        placeholder: $placeholder,
                        default: $default.into(),
                        applies: ReloadMode::$applies,
                    }),)+)+]
                });
                &KEYS
            }

            /// Reads the texts of every key, in the order of the fields. Refusals come with the key that they are of.
            pub(super) fn read(
                texts: &[&[String]],
            ) -> Result<Self, Vec<(&'static $crate::config::Key, $crate::config::value::InvalidValue)>> {
                use $crate::config::value::ValueReader;
                let (mut keys, mut texts) = (Self::keys().iter(), texts.iter());
                let mut refused = Vec::new();
                $($(
                    let key = keys.next().expect("there is a key for each field");
                    let rule: ValueReader<$type> = $rule;
                    let $field = rule
                        .read(texts.next().copied().unwrap_or_default())
                        .map_err(|refusals| refused.extend(refusals.into_iter().map(|failure| (key, failure))));
                )+)+
                match ($($($field,)+)+) {
                    ($($(Ok($field),)+)+) => Ok(Self { $($($field,)+)+ }),
                    _ => Err(refused),
                }
            }

            /// The names of the keys whose values are not the same.
            pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
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
