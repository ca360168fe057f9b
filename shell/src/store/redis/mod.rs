//! A store in Redis or Valkey, which several servers share. The decisions are those of [`session_core::cluster`].

mod config;
mod password;
mod small_file;
mod url;
mod script;
mod value;
mod command;
mod reply;
mod decode;
mod link;
mod format;
mod locator;
mod rights;
mod identity;
mod about;
mod cell;
mod node;
mod outage;
mod lane;
mod fence;
mod hints;
mod survey;
mod announce;
mod nodes;
mod store;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod trouble;

pub use config::{RedisConfig, RedisConfigError, RedisPlace};
#[doc(hidden)]
pub use decode::{CommandError, CommandReader, ScriptCall};
pub use link::LinkError;
pub use password::{RedisPassword, RedisPasswordError};
pub use store::{RedisOpenError, RedisStore};
pub use url::RedisUrl;
