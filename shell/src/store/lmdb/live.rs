//! The directory `live/`: the sessions that hold slots now. Once the server is gone, only those that linger matter.

use crate::runtime::events::log_event;
use std::path::Path;
use std::{fs, io};

use super::environment::{DATA_FILE, Durability, EnvironmentError, ReopeningEnv};
use super::error::{OpenError, explained};
use super::live_writes::{LiveWrites, NotMapped, objection};

/// Has the id of the boot in which the environment was created.
const BOOT_FILE: &str = "boot";

/// Opens `live/`. Creates it anew if it was created in another boot (data that was not synced may be damaged), if the boot is
/// not known, or if it does not open. That loses only lingering sessions: the server that starts is a new node, so every
/// session in there is of a dead one.
///
/// The boot file is removed first and written last. After a crash between the two, the directory is created anew.
pub(super) fn open(
    directory: &Path,
    map_bytes: usize,
    writes: LiveWrites,
    boot: Option<&str>,
) -> Result<ReopeningEnv, OpenError> {
    let marked = fs::read_to_string(directory.join(BOOT_FILE)).ok();
    if boot.is_some() && boot == marked.as_deref() {
        match open_environment(directory, map_bytes, writes) {
            Ok(env) => return Ok(env),
            Err(error) => {
                log_event!(slots_discarded { directory: display(directory.display()), error: display(error) });
            }
        }
    }
    recreate(directory, map_bytes, writes, boot)
}

/// Creates the directory if it does not exist. If it is a symbolic link, creates what it leads to: on a memory file system
/// that is gone after a reboot.
pub(super) fn create(directory: &Path) -> io::Result<()> {
    let created = fs::create_dir_all(directory);
    match (&created, fs::read_link(directory)) {
        (Err(_), Ok(target)) => fs::create_dir_all(directory.parent().unwrap_or(directory).join(target)),
        (Ok(()) | Err(_), _) => created,
    }
}

fn recreate(
    directory: &Path,
    map_bytes: usize,
    writes: LiveWrites,
    boot: Option<&str>,
) -> Result<ReopeningEnv, OpenError> {
    let unusable = |source: io::Error| OpenError::directory(directory.into(), source);
    for file in [BOOT_FILE, DATA_FILE, "lock.mdb"] {
        match fs::remove_file(directory.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let env = open_environment(directory, map_bytes, writes)
        .map_err(|error| OpenError::Live { directory: directory.into(), source: explained(directory, error) })?;
    if let Some(boot) = boot {
        fs::write(directory.join(BOOT_FILE), boot).map_err(unusable)?;
    }
    Ok(env)
}

/// Opens the environment. It is written through its map if that is safe and the blocks for it can be allocated. On a disk
/// that has no room for them, the server runs as well as it can.
fn open_environment(directory: &Path, map_bytes: usize, writes: LiveWrites) -> Result<ReopeningEnv, EnvironmentError> {
    let objection = match writes {
        LiveWrites::File => return ReopeningEnv::open(directory, map_bytes, Durability::Unsynced),
        LiveWrites::Map => None,
        LiveWrites::Auto => objection(directory),
    };
    let objection = match objection {
        Some(objection) => objection,
        None => match ReopeningEnv::open(directory, map_bytes, Durability::Mapped) {
            Err(EnvironmentError::NotAllocated(error)) => NotMapped::NotAllocated(error),
            opened => return opened,
        },
    };
    log_event!(slots_not_mapped { directory: display(directory.display()), reason: display(objection) });
    ReopeningEnv::open(directory, map_bytes, Durability::Unsynced)
}

/// The id of this boot of the machine. `None` if the system has none; Linux has.
pub(super) fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::mapped_file::faults::fail_allocations;
    use super::super::testing::logged;
    use super::*;

    const MAP: usize = 4 << 20;

    fn put(directory: &Path, boot: Option<&str>) {
        put_with(directory, LiveWrites::Auto, boot);
    }

    fn put_with(directory: &Path, writes: LiveWrites, boot: Option<&str>) {
        let mut env = open(directory, MAP, writes, boot).unwrap();
        let environment = env.environment().unwrap();
        let mut txn = environment.write().unwrap();
        for number in 0..1000_u32 {
            environment.records.put(&mut txn, &number.to_be_bytes(), b"record").unwrap();
        }
        environment.commit(txn).unwrap();
    }

    fn entries(directory: &Path, boot: Option<&str>) -> usize {
        open(directory, MAP, LiveWrites::Auto, boot).unwrap().environment().unwrap().entries()
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
        let error = open(directory.path(), MAP, LiveWrites::Auto, Some("one")).err().unwrap();
        assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
    }

    #[test]
    fn link_to_a_directory_that_is_gone_creates_it() {
        let directory = tempfile::tempdir().unwrap();
        for (name, target) in [("absolute", directory.path().join("run/one")), ("relative", "run/two".into())] {
            let live = directory.path().join(name);
            std::os::unix::fs::symlink(&target, &live).unwrap();
            for _ in 0..2 {
                create(&live).unwrap();
                assert!(fs::symlink_metadata(&live).unwrap().is_symlink());
                put(&live, Some("one"));
            }
            // The memory is empty after a reboot.
            fs::remove_dir_all(directory.path().join("run")).unwrap();
            create(&live).unwrap();
            assert_eq!(entries(&live, Some("two")), 0);
        }
        fs::write(directory.path().join("file"), "").unwrap();
        create(&directory.path().join("file")).unwrap_err();
    }

    /// What is logged when it is opened like this, and whether its file has its blocks beforehand.
    fn open_as(directory: &Path, writes: LiveWrites) -> (String, bool) {
        let mut is_mapped = false;
        let lines = logged(|| {
            put_with(directory, writes, Some("one"));
            let file = fs::metadata(directory.join(DATA_FILE)).unwrap();
            is_mapped = file.blocks() * 512 >= 1 << 20;
        });
        (lines, is_mapped)
    }

    #[test]
    fn way_of_writing_is_that_of_the_setting() {
        let directory = tempfile::tempdir().unwrap();
        for (writes, is_mapped) in [(LiveWrites::File, false), (LiveWrites::Map, true)] {
            let (lines, was_mapped) = open_as(directory.path(), writes);
            assert_eq!((lines.as_str(), was_mapped), ("", is_mapped));
        }
        let directory = tempfile::tempdir().unwrap();
        let objection = objection(directory.path());
        let (lines, is_mapped) = open_as(directory.path(), LiveWrites::Auto);
        assert_eq!((is_mapped, lines.contains("slots_not_mapped")), (objection.is_none(), objection.is_some()));
    }

    #[test]
    fn disk_without_room_is_written_without_a_map() {
        let directory = tempfile::tempdir().unwrap();
        fail_allocations(1);
        let (lines, is_mapped) = open_as(directory.path(), LiveWrites::Map);
        assert!(!is_mapped);
        let reason = "its blocks cannot be allocated";
        assert!(lines.contains("slots_not_mapped") && lines.contains(reason), "{lines}");
        // The records stay when there is room again.
        assert_eq!(entries(directory.path(), Some("one")), 1000);
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
            drop(open(directory.path(), MAP, LiveWrites::Auto, Some("one")).unwrap());
        }
        put(directory.path(), Some("one"));
        fs::write(directory.path().join(BOOT_FILE), "on").unwrap();
        assert_eq!(entries(directory.path(), Some("one")), 0);
    }
}
