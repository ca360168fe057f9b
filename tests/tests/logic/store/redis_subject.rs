//! The store in a Redis, as a subject.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use session_core::cluster::ClusterTiming;
use session_core::ledger::{AdmissionPolicy, SlotLimit};
use shell::runtime::process::Process;
use shell::store::{RedisConfig, RedisPlace, RedisStore, StoreHealth};
use tests::redis_process::{NOTHING_KEPT, RedisProcess};
use tests::test_server::NODE;
use tests::waiting::eventually;

use super::harness::{Subject, subject};

const BEAT: Duration = Duration::from_millis(200);
const CALL: Duration = Duration::from_millis(600);

/// Whether there is a Redis to run. If not, that is printed once.
pub(super) fn is_redis_installed() -> bool {
    static IS_INSTALLED: LazyLock<bool> = LazyLock::new(RedisProcess::is_installed);
    *IS_INSTALLED
}

/// A node that shares a store with nobody: all subjects share a Redis, and each has keys of its own.
pub(super) fn redis(limit: SlotLimit) -> Subject {
    let (directory, redis) = (tempfile::tempdir().unwrap(), running_redis());
    let store = RedisStore::open(&config(&redis, limit), directory.path(), NODE, Process::start()).unwrap();
    let subject = subject(store, (directory, redis));
    eventually("the store admits", || smol::block_on(subject.store.health()) == StoreHealth::Ready);
    subject
}

/// A Redis that ends with the last subject that has it.
fn running_redis() -> Arc<RedisProcess> {
    static REDIS: Mutex<Weak<RedisProcess>> = Mutex::new(Weak::new());

    let mut running = REDIS.lock().unwrap();
    running.upgrade().unwrap_or_else(|| {
        let redis = Arc::new(RedisProcess::start(&NOTHING_KEPT));
        *running = Arc::downgrade(&redis);
        redis
    })
}

fn config(redis: &RedisProcess, limit: SlotLimit) -> RedisConfig {
    static SUBJECTS: AtomicU32 = AtomicU32::new(0);

    let fence = ClusterTiming::min_fence(BEAT, CALL);
    RedisConfig {
        prefix: format!("subject-{}", SUBJECTS.fetch_add(1, Ordering::Relaxed)),
        timing: ClusterTiming::new(BEAT, fence, ClusterTiming::min_lease(fence), CALL).unwrap(),
        call_timeout: CALL,
        ..RedisConfig::new(RedisPlace::Server(redis.url().parse().unwrap()), AdmissionPolicy::new(limit))
    }
}
