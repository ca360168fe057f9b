//! Opens the environment of `users/`.

use std::path::Path;
use std::{fs, io};

use crate::runtime::events::log_event;
use crate::store::lmdb::environment::{DATA_FILE, Durability, EnvironmentError, ReopeningEnv};
use crate::store::lmdb::error::{OpenError, explained};

/// Opens `users/`, or creates it.
pub(in crate::store::lmdb) fn open(directory: &Path, map_bytes: usize) -> Result<ReopeningEnv, OpenError> {
    if is_data_missing(directory) {
        log_event!(known_users_lost { directory: display(directory.display()) });
    }
    let env = ReopeningEnv::open(directory, map_bytes, Durability::Synced).map_err(|error| match error {
        EnvironmentError::Damaged(_)
        | EnvironmentError::Lmdb(heed::Error::Mdb(
            heed::MdbError::Invalid | heed::MdbError::Corrupted | heed::MdbError::PageNotFound,
        )) => OpenError::UsersDamaged { directory: directory.into(), source: error.into() },
        EnvironmentError::NotThere(_)
        | EnvironmentError::NotAllocated(_)
        | EnvironmentError::Io(_)
        | EnvironmentError::Lmdb(_) => {
            OpenError::Users { directory: directory.into(), source: explained(directory, error) }
        }
    })?;
    // A synced file survives a power cut only if its directory entry is synced, too.
    let sync = |path: &Path| fs::File::open(path).and_then(|directory| directory.sync_all());
    sync(directory)
        .and_then(|()| directory.parent().map_or(Ok(()), sync))
        .map_err(|source: io::Error| OpenError::directory(directory.into(), source))?;
    Ok(env)
}

/// Whether there was an environment, as its lock file shows, whose data is gone.
fn is_data_missing(directory: &Path) -> bool {
    let has_data = fs::metadata(directory.join(DATA_FILE)).is_ok_and(|file| file.len() > 0);
    directory.join("lock.mdb").exists() && !has_data
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: usize = 4 << 20;

    #[test]
    fn only_removed_data_counts_as_missing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_data_missing(directory.path()), "nothing was there yet");
        drop(open(directory.path(), MAP).unwrap());
        assert!(!is_data_missing(directory.path()), "no user is known, and nothing is missing");
        fs::write(directory.path().join(DATA_FILE), "").unwrap();
        assert!(is_data_missing(directory.path()));
        fs::remove_file(directory.path().join(DATA_FILE)).unwrap();
        assert!(is_data_missing(directory.path()));
    }

    #[test]
    fn damage_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path(), MAP).unwrap());
        fs::write(directory.path().join("data.mdb"), [1; 9000]).unwrap();
        let error = open(directory.path(), MAP).err().unwrap();
        assert!(matches!(error, OpenError::UsersDamaged { .. }), "{error:?}");
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }
}
