//! The directory `live/`: the sessions that hold slots now. Once the server is gone, only those that linger matter.

use crate::runtime::events::log_event;
use std::path::Path;
use std::{fs, io};

use super::environment::{DATA_FILE, Durability, ReopeningEnv};
use super::error::{OpenError, explained};

/// Has the id of the boot in which the environment was created.
const BOOT_FILE: &str = "boot";

/// Opens `live/`. Creates it anew if it was created in another boot (data that was not synced may be damaged), if the boot is
/// not known, or if it does not open. That loses only lingering sessions: the server that starts is a new node, so every
/// session in there is of a dead one.
///
/// The boot file is removed first and written last. After a crash between the two, the directory is created anew.
pub(super) fn open(directory: &Path, map_bytes: usize, boot: Option<&str>) -> Result<ReopeningEnv, OpenError> {
    let marked = fs::read_to_string(directory.join(BOOT_FILE)).ok();
    if boot.is_some() && boot == marked.as_deref() {
        match ReopeningEnv::open(directory, map_bytes, Durability::Unsynced) {
            Ok(env) => return Ok(env),
            Err(error) => {
                log_event!(slots_discarded { directory: display(directory.display()), error: display(error) });
            }
        }
    }
    recreate(directory, map_bytes, boot)
}

fn recreate(directory: &Path, map_bytes: usize, boot: Option<&str>) -> Result<ReopeningEnv, OpenError> {
    let unusable = |source: io::Error| OpenError::directory(directory.into(), source);
    for file in [BOOT_FILE, DATA_FILE, "lock.mdb"] {
        match fs::remove_file(directory.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let env = ReopeningEnv::open(directory, map_bytes, Durability::Unsynced)
        .map_err(|error| OpenError::Live { directory: directory.into(), source: explained(directory, error) })?;
    if let Some(boot) = boot {
        fs::write(directory.join(BOOT_FILE), boot).map_err(unusable)?;
    }
    Ok(env)
}

/// The id of this boot of the machine. `None` if the system has none; Linux has.
pub(super) fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: usize = 4 << 20;

    fn put(directory: &Path, boot: Option<&str>) {
        let mut env = open(directory, MAP, boot).unwrap();
        let environment = env.environment().unwrap();
        let mut txn = environment.write().unwrap();
        for number in 0..1000_u32 {
            environment.records.put(&mut txn, &number.to_be_bytes(), b"record").unwrap();
        }
        environment.commit(txn).unwrap();
    }

    fn entries(directory: &Path, boot: Option<&str>) -> usize {
        open(directory, MAP, boot).unwrap().environment().unwrap().entries()
    }

    #[test]
    fn live_is_kept_until_the_machine_reboots() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), Some("one"));
        assert_eq!(entries(directory.path(), Some("one")), 1000);
        assert_eq!(entries(directory.path(), Some("two")), 0);
        assert_eq!(entries(directory.path(), Some("one")), 0);
    }

    #[test]
    fn live_is_recreated_without_a_boot_id() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), None);
        assert_eq!(entries(directory.path(), None), 0);
        put(directory.path(), Some("one"));
        assert_eq!(entries(directory.path(), None), 0);
        assert_eq!(entries(directory.path(), Some("one")), 0);
    }

    #[test]
    fn damaged_live_is_recreated() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [0, 100, 5000, 3 * 4096] {
            put(directory.path(), Some("one"));
            fs::File::options().write(true).open(directory.path().join(DATA_FILE)).unwrap().set_len(bytes).unwrap();
            assert_eq!(entries(directory.path(), Some("one")), 0);
        }
        put(directory.path(), Some("one"));
        fs::write(directory.path().join(DATA_FILE), [7; 20_000]).unwrap();
        assert_eq!(entries(directory.path(), Some("one")), 0);
    }

    #[test]
    fn file_that_cannot_be_removed_is_a_directory_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(DATA_FILE)).unwrap();
        let error = open(directory.path(), MAP, Some("one")).err().unwrap();
        assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_has_a_boot_id() {
        let boot = boot_id().unwrap();
        assert!(boot.len() == 36 && boot.chars().all(|char| char == '-' || char.is_ascii_hexdigit()), "{boot:?}");
    }

    #[test]
    fn live_opens_after_any_crash() {
        let directory = tempfile::tempdir().unwrap();
        for missing in [BOOT_FILE, DATA_FILE, "lock.mdb"] {
            put(directory.path(), Some("one"));
            fs::remove_file(directory.path().join(missing)).unwrap();
            drop(open(directory.path(), MAP, Some("one")).unwrap());
        }
        put(directory.path(), Some("one"));
        fs::write(directory.path().join(BOOT_FILE), "on").unwrap();
        assert_eq!(entries(directory.path(), Some("one")), 0);
    }
}
