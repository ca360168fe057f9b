//! Users and slots in a Redis or Valkey that several servers share.

mod config;
mod password;
mod small_file;
mod url;

pub use config::{RedisConfig, RedisConfigError};
pub use password::{RedisPassword, RedisPasswordError};
pub use url::RedisUrl;
