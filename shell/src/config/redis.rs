//! Conflicts between the keys of the store that several servers share.

use std::time::Duration;

use session_core::cluster::{ClusterTiming, ClusterTimingError};

use super::table::{Config, StoreKind};
use crate::store::RedisUrl;

/// Keys and why they conflict.
type Reason = (&'static [&'static str], String);

/// Every conflict between these keys. While the store is another one, nothing uses them.
pub(super) fn conflicts(config: &Config) -> Vec<Reason> {
    let places = [
        ("redis_url", config.redis_url.is_some()),
        ("redis_sentinels", !config.redis_sentinels.is_empty()),
        ("redis_cluster", !config.redis_cluster.is_empty()),
    ];
    let mut given = places.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name);
    let mut conflicts = match (config.store, given.next(), given.next()) {
        (StoreKind::Redis, Some(_), None) => Vec::new(),
        (StoreKind::Redis, Some(_), Some(_)) => {
            vec![(&PLACES[..], "set only one of redis_url, redis_sentinels and redis_cluster".into())]
        }
        (StoreKind::Redis, None, _) => {
            let reason = "store = \"redis\" needs redis_url, redis_sentinels or redis_cluster, which say where it is";
            vec![(&["store", "redis_url"][..], reason.into())]
        }
        // Each server would have slots of its own, and so grant more of them than the limit.
        (StoreKind::Lmdb | StoreKind::Memory, Some(name), _) => {
            let reason = format!("{name} has no effect without store = \"redis\": set both, or none");
            return vec![(&["store", "redis_url", "redis_sentinels", "redis_cluster"], reason)];
        }
        (StoreKind::Lmdb | StoreKind::Memory, None, _) => return Vec::new(),
    };
    conflicts.extend(place_conflicts(config));
    conflicts.extend(login_conflicts(config));
    conflicts.extend(certificate_conflicts(config));
    conflicts.extend(timing_conflicts(config));
    conflicts
}

/// The keys that say where the store is.
const PLACES: [&str; 3] = ["redis_url", "redis_sentinels", "redis_cluster"];

fn place_conflicts(config: &Config) -> Vec<Reason> {
    let mut conflicts: Vec<Reason> = Vec::new();
    let keys = &["redis_sentinels", "redis_master"];
    match (config.redis_sentinels.is_empty(), &config.redis_master) {
        (false, None) => conflicts.push((keys, "redis_sentinels need the name of the server in redis_master".into())),
        (true, Some(_)) => conflicts.push((keys, "redis_master has no effect without redis_sentinels".into())),
        (false, Some(_)) | (true, None) => {}
    }
    let is_socket = |url: &RedisUrl| url.is_socket();
    if config.redis_sentinels.iter().chain(&config.redis_cluster).any(is_socket) {
        conflicts.push((&PLACES[1..], "they name other servers, which a Unix socket does not lead to".into()));
    }
    if config.redis_cluster.iter().any(RedisUrl::has_database) {
        conflicts.push((&PLACES[2..], "a Redis Cluster has only the database 0".into()));
    }
    if config.redis_wait && config.redis_replicas == 0 {
        let keys = &["redis_wait", "redis_replicas"];
        conflicts.push((keys, "redis_wait waits for no replica: set redis_replicas to 1 or more".into()));
    }
    conflicts
}

fn login_conflicts(config: &Config) -> Vec<Reason> {
    let mut conflicts: Vec<Reason> = Vec::new();
    let Some(url) = config.redis_url.as_ref().or_else(|| config.redis_cluster.first()) else { return conflicts };
    if url.has_user() && config.redis_user.is_some() {
        conflicts.push((&["redis_url", "redis_user"], "redis_url names a user, too: set only one".into()));
    }
    if url.has_password() && config.redis_password_file.is_some() {
        conflicts.push((&["redis_url", "redis_password_file"], "redis_url has a password, too: set only one".into()));
    }
    conflicts
}

fn certificate_conflicts(config: &Config) -> Vec<Reason> {
    let mut conflicts: Vec<Reason> = Vec::new();
    match (&config.redis_cert, &config.redis_key) {
        (Some(_), None) => conflicts.push((&["redis_cert", "redis_key"], "a certificate needs its key".into())),
        (None, Some(_)) => conflicts.push((&["redis_key", "redis_cert"], "a key needs its certificate".into())),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let keys: [(&[&str], _); 3] = [
        (&["redis_ca", "redis_url"], &config.redis_ca),
        (&["redis_cert", "redis_url"], &config.redis_cert),
        (&["redis_key", "redis_url"], &config.redis_key),
    ];
    let urls = config.redis_url.iter().chain(&config.redis_sentinels).chain(&config.redis_cluster);
    if urls.into_iter().any(|url| !url.is_tls()) {
        for (keys, _) in keys.into_iter().filter(|(_, file)| file.is_some()) {
            conflicts.push((keys, format!("{} has no effect without TLS: begin the URL with rediss://", keys[0])));
        }
    }
    conflicts
}

/// The first time that does not fit the others, and then the next one, as if the first were as long as it must be.
fn timing_conflicts(config: &Config) -> Vec<Reason> {
    let Config { node_beat: beat, node_fence: fence, node_lease: lease, store_timeout: call, .. } = *config;
    let min_fence = ClusterTiming::min_fence(beat, call);
    let min_lease = ClusterTiming::min_lease(fence.max(min_fence));
    let mut conflicts: Vec<Reason> = Vec::new();
    for (fence, lease) in [(fence, lease), (fence.max(min_fence), lease)] {
        match ClusterTiming::new(beat, fence, lease, call) {
            Ok(_) => return conflicts,
            Err(ClusterTimingError::FenceTooShort) => conflicts.push((
                &["node_fence", "node_beat", "store_timeout"],
                format!(
                    "a server would close its sessions because of one lost beat: with these node_beat and store_timeout, \
                     node_fence must be at least {}",
                    whole_millis(min_fence)
                ),
            )),
            Err(ClusterTimingError::LeaseTooShort) => {
                conflicts.push((
                    &["node_lease", "node_fence"],
                    format!(
                        "the slots of a server could become free while it still serves their sessions: with a node_fence of {}, \
                         node_lease must be at least {}",
                        whole_millis(fence),
                        whole_millis(min_lease)
                    ),
                ));
                return conflicts;
            }
        }
    }
    conflicts
}

/// Rounded up, as people write it.
fn whole_millis(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
