//! The directory `live/`: the slots held now. What it holds is worth nothing once the server is gone.

use std::path::Path;
use std::{fs, io};

use super::environment::{DATA_FILE, Durability, ReopeningEnv};
use super::error::OpenError;

/// Says under which boot of the machine the environment was made.
const BOOT_FILE: &str = "boot";

/// Opens `live/`, or makes it anew: if it was made under another boot, when what was not synced may be damaged, if
/// the boot is not known, or if it does not open. What is lost by that is what lingered. The server that starts is a new
/// node, so every slot in there is of a dead one.
///
/// The boot file is removed first and written last, so a crash between leaves a directory that is made anew.
pub(super) fn open(directory: &Path, map_bytes: usize, boot: Option<&str>) -> Result<ReopeningEnv, OpenError> {
    let marked = fs::read_to_string(directory.join(BOOT_FILE)).ok();
    if boot.is_some() && boot == marked.as_deref() {
        match ReopeningEnv::open(directory, map_bytes, Durability::Unsynced) {
            Ok(env) => return Ok(env),
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "left-over slots cannot be read and are thrown away");
            }
        }
    }
    recreate(directory, map_bytes, boot)
}

fn recreate(directory: &Path, map_bytes: usize, boot: Option<&str>) -> Result<ReopeningEnv, OpenError> {
    let unusable = |source: io::Error| OpenError::Directory { directory: directory.into(), source };
    for file in [BOOT_FILE, DATA_FILE, "lock.mdb"] {
        match fs::remove_file(directory.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let env = ReopeningEnv::open(directory, map_bytes, Durability::Unsynced)
        .map_err(|error| OpenError::Live { directory: directory.into(), source: error.into() })?;
    if let Some(boot) = boot {
        fs::write(directory.join(BOOT_FILE), boot).map_err(unusable)?;
    }
    Ok(env)
}

/// What names this boot of the machine, where the system tells: Linux does.
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
    fn it_is_kept_for_as_long_as_the_machine_runs() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), Some("one"));
        assert_eq!(entries(directory.path(), Some("one")), 1000);
        assert_eq!(entries(directory.path(), Some("two")), 0);
        assert_eq!(entries(directory.path(), Some("one")), 0);
    }

    #[test]
    fn without_a_boot_id_it_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), None);
        assert_eq!(entries(directory.path(), None), 0);
        put(directory.path(), Some("one"));
        assert_eq!(entries(directory.path(), None), 0);
        assert_eq!(entries(directory.path(), Some("one")), 0);
    }

    #[test]
    fn damaged_it_is_made_anew() {
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
    fn what_cannot_be_removed_is_an_error_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(DATA_FILE)).unwrap();
        let error = open(directory.path(), MAP, Some("one")).err().unwrap();
        assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_names_its_boots() {
        let boot = boot_id().unwrap();
        assert!(boot.len() == 36 && boot.chars().all(|char| char == '-' || char.is_ascii_hexdigit()), "{boot:?}");
    }

    #[test]
    fn any_state_that_a_crash_leaves_opens() {
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
