//! A store in Redis or Valkey, which several servers share. The decisions are those of [`session_core::cluster`].

mod config;
mod password;
mod small_file;
mod url;
mod script;
mod value;
mod command;
mod reply;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod oracle;

pub use config::{RedisConfig, RedisConfigError};
pub use password::{RedisPassword, RedisPasswordError};
pub use url::RedisUrl;
