//! The configuration of the server: keys, sources, bounds and errors.
//!
//! `table` defines every key once. A key can be set in a TOML file, by an environment variable and by a flag, in rising
//! order of precedence:
//!
//! ```
//! use shell::config::{ConfigLoader, Flags};
//!
//! let environment = [("SESSIONS_LIMIT".into(), "5".into())];
//! let loaded = ConfigLoader::new(Flags::default(), environment).load().unwrap();
//! assert_eq!(loaded.config.limit.slots(), 5);
//! ```
//!
//! [`ConfigErrors`] holds every error at once. [`mod@print`] prints a configuration as a file. [`diff()`] compares two
//! configurations, for a reload.

pub(crate) mod build;
mod conflicts;
mod diff;
mod environment;
pub(crate) mod error;
mod file;
mod files;
pub(crate) mod flags;
pub(crate) mod key;
mod layer;
pub(crate) mod loader;
pub mod print;
mod redis;
#[cfg(test)]
mod sample;
mod shared_settings;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub mod value;

pub use build::{RedisSettingsError, VerifierError};
pub use diff::{ChangedKey, diff};
pub use error::{ConfigError, ConfigErrors, ConfigSource};
pub use flags::Flags;
pub use key::{Key, ReloadMode};
pub use layer::KeyValue;
pub use loader::{ConfigLoader, Loaded};
pub use shared_settings::shared_settings;
pub(crate) use table::when_full_values;
pub use table::{Authentication, Config, StoreKind};
