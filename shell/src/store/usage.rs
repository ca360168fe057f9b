//! How much a store holds.

/// How much a store holds. What it cannot say now is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreUsage {
    /// How many users it knows.
    pub known_users: Option<usize>,
    /// The most users that it knows.
    pub max_known_users: Option<usize>,
    /// How many users have overrides.
    pub users_with_overrides: Option<usize>,
    /// The environment of the slots, if the store has one.
    pub live: Option<EnvironmentUsage>,
    /// The environment of the users, if the store has one.
    pub users: Option<EnvironmentUsage>,
}

/// How much of an LMDB environment is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvironmentUsage {
    /// The size of the map.
    pub map_bytes: u64,
    /// What records take.
    pub used_bytes: u64,
    /// The length of the file.
    pub file_bytes: u64,
}
