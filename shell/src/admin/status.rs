//! How the server and its store are doing, for an operator.

use serde::{Deserialize, Serialize};
use session_core::ledger::StoreError;

use crate::store::{EnvironmentUsage, StoreHealth, StoreUsage};

/// How the server and its store are doing. Times are in milliseconds. What cannot be said now is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// What the running server says. `None` if none runs: then a command has looked into the store.
    pub server: Option<ServerStatus>,
    /// The data directory. `None` if the data is in memory only.
    pub data: Option<String>,
    /// The sessions that hold slots.
    pub sessions: Option<SessionTotals>,
    /// The users.
    pub users: UserTotals,
    /// The store.
    pub store: StoreStatus,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The version of the software.
    pub version: String,
    /// The id of this process in the sessions that it serves, 16 hexadecimal digits.
    pub node: String,
    /// The id of the process in the system.
    pub process: u32,
    /// When it started, since 1970.
    pub started_at: u64,
    /// How long ago that was.
    pub uptime_ms: u64,
    /// Where it listens, as URLs.
    pub listen: Vec<String>,
    /// The connections, with and without a session.
    pub connections: ConnectionTotals,
    /// The files that the process has open.
    pub descriptors: DescriptorTotals,
    /// The configuration.
    pub configuration: ConfigurationStatus,
}

/// The connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionTotals {
    /// How many there are.
    pub open: usize,
    /// How many of them have no slot or, with tokens, have shown no valid one.
    pub unauthenticated: usize,
    /// The most there may be. `None` if they are not limited.
    pub max: Option<usize>,
    /// The most there may be without a slot.
    pub max_unauthenticated: Option<usize>,
}

/// The file descriptors of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorTotals {
    /// How many are used. `None` if the system does not say it.
    pub used: Option<u64>,
    /// The most there may be. `None` if they are not limited.
    pub max: Option<u64>,
}

/// What the sources of the configuration (file, environment and flags) say now, beside what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// Settings that have changed since the start and need a restart.
    pub needs_restart: Vec<ChangedSetting>,
    /// Settings that have changed and need a reload (SIGHUP).
    pub needs_reload: Vec<ChangedSetting>,
    /// Why the configuration could not be loaded now: a reload would change nothing, and a restart would fail.
    pub error: Option<String>,
}

/// A setting whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedSetting {
    /// The name of its key.
    pub key: String,
    /// The value in force. Commas separate the values of a list.
    pub in_force: String,
    /// The value that it has now.
    pub now: String,
}

/// How many sessions hold slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionTotals {
    /// Those that are live.
    pub live: u64,
    /// Those that are lost and linger.
    pub lingering: u64,
    /// How many users have them.
    pub users: u64,
    /// Whether all are counted. If not, the time was up: there are more.
    pub complete: bool,
}

/// How many users there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserTotals {
    /// How many the store knows. A user whose first session is some seconds old may be missing.
    pub known: Option<usize>,
    /// The most that it knows.
    pub max_known: Option<usize>,
    /// For how many something is set.
    pub with_overrides: Option<usize>,
}

/// How a store is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Whether other servers use it as well. Then it has none of the maps below.
    #[serde(default)]
    pub shared: bool,
    /// Whether it admits sessions.
    pub admits: bool,
    /// What a client is told that signs in now, if it does not.
    pub refusal: Option<String>,
    /// What is wrong, for an operator.
    pub problems: Vec<String>,
    /// The map of `live/`, which has the slots.
    pub live: Option<MapUsage>,
    /// The map of `users/`.
    pub users: Option<MapUsage>,
}

/// How much of a map is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapUsage {
    /// The most that it may hold, in bytes.
    pub max_bytes: u64,
    /// What its records take.
    pub used_bytes: u64,
    /// The length of its file: what is free in it is used again.
    pub file_bytes: u64,
}

impl From<EnvironmentUsage> for MapUsage {
    fn from(EnvironmentUsage { map_bytes, used_bytes, file_bytes }: EnvironmentUsage) -> Self {
        Self { max_bytes: map_bytes, used_bytes, file_bytes }
    }
}

impl StatusReport {
    /// A report of what the store says.
    pub(super) fn new(
        server: Option<ServerStatus>,
        data: Option<String>,
        sessions: Option<SessionTotals>,
        usage: StoreUsage,
        health: StoreHealth,
        shared: bool,
    ) -> Self {
        let refusal = health.refusal().map(StoreError::message).map(ToOwned::to_owned);
        let problems = match health {
            StoreHealth::Ready => Vec::new(),
            StoreHealth::Degraded { problems, .. } => problems,
            StoreHealth::Unavailable { problem, .. } => vec![problem],
        };
        let StoreUsage { known_users, max_known_users, users_with_overrides, live, users } = usage;
        Self {
            server,
            data,
            sessions,
            users: UserTotals { known: known_users, max_known: max_known_users, with_overrides: users_with_overrides },
            store: StoreStatus {
                shared,
                admits: refusal.is_none(),
                refusal,
                problems,
                live: live.map(Into::into),
                users: users.map(Into::into),
            },
        }
    }
}

impl SessionTotals {
    /// With the sessions of one more user.
    pub(super) fn add(&mut self, live: u32, lingering: u32) {
        self.live += u64::from(live);
        self.lingering += u64::from(lingering);
        self.users += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_why_the_store_admits_no_session() {
        let status = |health| StatusReport::new(None, None, None, StoreUsage::default(), health, false).store;
        let StoreStatus { admits, refusal, problems, .. } = status(StoreHealth::Ready);
        assert_eq!((admits, refusal, problems.len()), (true, None, 0));
        let problems = vec!["the disk is nearly full".to_owned()];
        let degraded = status(StoreHealth::Degraded { refusal: None, problems: problems.clone() });
        assert_eq!((degraded.admits, degraded.refusal, degraded.problems), (true, None, problems.clone()));
        let full = status(StoreHealth::Degraded { refusal: Some(StoreError::Full), problems: problems.clone() });
        assert_eq!(
            (full.admits, full.refusal, full.problems),
            (false, Some(StoreError::Full.message().into()), problems)
        );
        let closed =
            status(StoreHealth::Unavailable { refusal: StoreError::Failed, problem: "the store is closed".into() });
        assert_eq!((closed.admits, closed.problems), (false, vec!["the store is closed".to_owned()]));
    }
}
