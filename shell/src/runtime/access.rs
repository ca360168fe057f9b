//! Says which right is missing, for which user and on which path, where the system only says "permission denied".

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{getegid, geteuid};

/// The right that the process needs on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To read it.
    Read,
    /// To write to it; or to create it, if it is not there.
    Write,
    /// To read and to write a directory, and all that is in it.
    Tree,
}

/// The error of the system. If a permission is missing, also which one, for whom, where, and what to do.
pub(crate) fn explain(error: &io::Error, path: &Path, right: Right) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    match find_denied(path, right) {
        Some(denied) => format!("{error}: {denied}"),
        None => format!(
            "{error}: the modes of {} allow it to {}, so a policy of the system (SELinux, AppArmor, a sandbox) forbids it",
            path.display(),
            User::effective()
        ),
    }
}

/// The same error with a message that [`explain`]s it.
pub(crate) fn explained(error: io::Error, path: &Path, right: Right) -> io::Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        io::Error::new(error.kind(), explain(&error, path, right))
    } else {
        error
    }
}

/// The user that the process acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    id: u32,
    name: Option<String>,
}

impl User {
    pub(crate) fn effective() -> Self {
        Self::with_id(geteuid().as_raw())
    }

    fn with_id(id: u32) -> Self {
        Self { id, name: name_in("/etc/passwd", id) }
    }
}

/// As in `user ada (uid 1000)`.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "user {name} (uid {})", self.id),
            None => write!(f, "the user with uid {}", self.id),
        }
    }
}

/// A right that is missing.
#[derive(Debug, PartialEq, Eq)]
struct Denied {
    user: User,
    action: &'static str,
    path: PathBuf,
    owner: String,
    mode: u32,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, action, path, owner, mode } = self;
        let path = path.display();
        write!(
            f,
            "{user} may not {action} {path}, which belongs to {owner} and has mode {mode:04o}. Run this as a user that may, or \
             give this one the right with chown or chmod"
        )
    }
}

/// The first right that is missing on the way to the path, or at it.
fn find_denied(path: &Path, right: Right) -> Option<Denied> {
    let path = std::path::absolute(path).ok()?;
    let mut ancestors: Vec<_> = path.ancestors().skip(1).collect();
    ancestors.reverse();
    for directory in ancestors {
        if !may(directory, Access::EXISTS) {
            return creation_denied(directory);
        }
        if !may(directory, Access::EXEC_OK) {
            return denied(directory, "enter the directory");
        }
    }
    if !may(&path, Access::EXISTS) {
        return creation_denied(&path);
    }
    let is_directory = path.is_dir();
    match right {
        Right::Read if !may(&path, Access::READ_OK) => denied(&path, "read"),
        Right::Write if !may(&path, Access::WRITE_OK) => denied(&path, "write to"),
        Right::Tree => first_in_tree(&path, 2),
        Right::Read | Right::Write if is_directory && !may(&path, Access::EXEC_OK) => {
            denied(&path, "enter the directory")
        }
        Right::Read | Right::Write => None,
    }
}

/// The first file or directory of a tree of this depth that cannot be read and written.
fn first_in_tree(path: &Path, depth: u32) -> Option<Denied> {
    /// A data directory has far fewer files.
    const MAX_ENTRIES: usize = 100;

    if path.is_dir() {
        if !may(path, Access::EXEC_OK) {
            return denied(path, "enter the directory");
        }
        if !may(path, Access::READ_OK) {
            return denied(path, "list the directory");
        }
        if !may(path, Access::WRITE_OK) {
            return denied(path, "create files in the directory");
        }
        let entries = fs::read_dir(path).ok()?.flatten().take(MAX_ENTRIES).filter(|_| depth > 0);
        return entries.into_iter().find_map(|entry| first_in_tree(&entry.path(), depth - 1));
    }
    if may(path, Access::READ_OK | Access::WRITE_OK) { None } else { denied(path, "read and write") }
}

/// The nearest directory above a path that does not exist lets nothing be created in it.
fn creation_denied(path: &Path) -> Option<Denied> {
    let directory = path.ancestors().skip(1).find(|directory| directory.exists())?;
    if may(directory, Access::WRITE_OK) { None } else { denied(directory, "create files in the directory") }
}

fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

fn denied(path: &Path, action: &'static str) -> Option<Denied> {
    let metadata = fs::metadata(path).ok()?;
    Some(Denied {
        user: User::effective(),
        action,
        owner: owner(&metadata),
        mode: metadata.mode() & 0o7777,
        path: path.into(),
    })
}

/// As in `user ada (uid 1000)`; with the group if the process is in it.
fn owner(metadata: &Metadata) -> String {
    let user = User::with_id(metadata.uid());
    if metadata.gid() == getegid().as_raw() && metadata.uid() != geteuid().as_raw() {
        let group = name_in("/etc/group", metadata.gid()).unwrap_or_else(|| metadata.gid().to_string());
        return format!("{user} and your group {group}");
    }
    user.to_string()
}

/// The name with this id in a file such as `/etc/passwd`. Names that another service knows stay unknown.
fn name_in(file: &str, id: u32) -> Option<String> {
    find_name(&fs::read_to_string(file).ok()?, id)
}

fn find_name(lines: &str, id: u32) -> Option<String> {
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    };
    lines.lines().find_map(name)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn name_is_found_by_its_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken\nada:x:1000:1000:,,,:/home/ada:/bin/sh\n";
        assert_eq!(find_name(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(find_name(passwd, 0).as_deref(), Some("root"));
        assert_eq!(find_name(passwd, 1), None);
    }

    #[test]
    fn denied_right_is_named_with_user_path_and_advice() {
        let user = User { id: 998, name: Some("sessions".into()) };
        let denied = Denied {
            user,
            action: "read",
            path: "/etc/key.pem".into(),
            owner: "user root (uid 0)".into(),
            mode: 0o600,
        };
        assert_eq!(
            denied.to_string(),
            "user sessions (uid 998) may not read /etc/key.pem, which belongs to user root (uid 0) and has mode 0600. Run \
             this as a user that may, or give this one the right with chown or chmod"
        );
        assert_eq!(User { id: 998, name: None }.to_string(), "the user with uid 998");
    }

    /// Root may do everything, so as root this only shows that nothing is denied.
    #[test]
    fn first_missing_right_on_the_way_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("data/users")).unwrap();
        fs::write(path("data/users/data.mdb"), "").unwrap();
        let set = |name: &str, mode| fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
        for (name, mode, usual, asked, right, action) in [
            ("data", 0o000, 0o755, "data/users/data.mdb", Right::Read, "enter the directory"),
            ("data", 0o500, 0o755, "data/new/file", Right::Write, "create files in the directory"),
            ("data", 0o500, 0o755, "data", Right::Tree, "create files in the directory"),
            ("data/users/data.mdb", 0o400, 0o644, "data", Right::Tree, "read and write"),
            ("data/users/data.mdb", 0o000, 0o644, "data/users/data.mdb", Right::Read, "read"),
            ("data/users/data.mdb", 0o400, 0o644, "data/users/data.mdb", Right::Write, "write to"),
        ] {
            set(name, mode);
            let found = find_denied(&path(asked), right);
            set(name, usual);
            if geteuid().is_root() {
                assert_eq!(found, None, "{name}");
            } else {
                let found = found.unwrap();
                assert_eq!((found.action, found.path, found.mode), (action, path(name), mode), "{name}");
            }
            assert_eq!(find_denied(&path(asked), right), None, "{name}");
        }
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(explain(&other, &path("data"), Right::Read), other.to_string());
    }
}
