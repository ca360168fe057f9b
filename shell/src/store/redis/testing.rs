//! A server for the tests of this folder.

use redis::Client;
use tests::redis_process::{NOTHING_KEPT, RedisProcess};

/// A `redis-server` that keeps nothing on disk. It ends with this.
pub(super) struct RedisServer(RedisProcess);

impl RedisServer {
    /// `None` if there is no such program here, which is said.
    pub(super) fn start() -> Option<Self> {
        let arguments = [&NOTHING_KEPT[..], &["--enable-debug-command", "local"]].concat();
        RedisProcess::is_installed().then(|| Self(RedisProcess::start(&arguments)))
    }

    pub(super) fn url(&self) -> String {
        self.0.url()
    }

    pub(super) fn client(&self) -> Client {
        Client::open(self.url()).unwrap()
    }
}
