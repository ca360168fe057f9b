//! Fills a data directory as years of use, or a killed server, would. It writes the documented format of the records
//! directly, which is much faster.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, EnvFlags, EnvOpenOptions, PutFlags};
use session_core::ledger::{SessionRecord, UserRecord};
use session_core::{NodeId, Timestamp};
use shell::client::bench::load::Users;

const MAP_BYTES: usize = 8 << 30;

/// Writes records of `users` users, all seen a moment ago.
pub(crate) fn write_users(data: &Path, users: u32) -> Result<()> {
    let now = Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?).millis();
    let mut record = vec![1];
    record.extend(now.to_be_bytes());
    record.extend(now.to_be_bytes());
    append(&data.join("users"), (0..users).map(|number| (Users::name(number), record.clone())))
}

/// Writes three slots for each of `users` users. They belong to a server that no longer runs.
pub(crate) fn write_stale_slots(data: &Path, users: u32) -> Result<()> {
    let dead = NodeId::new(0xdead);
    let since = Timestamp::from_epoch(Duration::from_secs(1));
    append(
        &data.join("live"),
        (0..users).map(|user| {
            let slots =
                (0..3).map(|slot| SessionRecord::new(dead.session(u64::from(user) * 3 + slot), since)).collect();
            let mut bytes = Vec::new();
            UserRecord::from_sessions(slots).expect("three sessions that differ").encode(&mut bytes);
            (Users::name(user), bytes)
        }),
    )
}

fn append(directory: &Path, records: impl Iterator<Item = (String, Vec<u8>)>) -> Result<()> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    // SAFETY: no server uses the directory. If this process dies, the half-written directory is deleted.
    let env = unsafe {
        options.flags(EnvFlags::NO_SYNC);
        options.open(directory).with_context(|| format!("cannot open {}", directory.display()))?
    };
    let table = env
        .create_databases_and_commit(env.write_txn()?, |opener, txn| {
            opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
        })?
        .commit()
        .expect("the closure above never aborts");
    let mut txn = env.write_txn()?;
    table.clear(&mut txn)?;
    for (key, value) in records {
        table.put_with_flags(&mut txn, PutFlags::APPEND, key.as_bytes(), &value)?;
    }
    txn.commit()?;
    Ok(())
}
