//! The id of this node, which lies in the data directory: a process that is restarted can say which node it was before.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use session_core::NodeId;

use super::value;

/// The file with the id of the node that uses a data directory.
///
/// Whoever holds the directory's lock may be sure that the process that wrote it is gone: if it wrote it in this very directory, and
/// since this machine was started. A copy of the directory, or a volume that was taken from another machine, tells nothing. So the
/// file names both.
#[derive(Debug)]
pub(super) struct IdFile {
    path: PathBuf,
    /// The start of the machine and the directory.
    place: String,
}

impl IdFile {
    /// The file in this directory.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(directory)?;
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let place = format!("{} {}:{}", boot.trim(), metadata.dev(), metadata.ino());
        Ok(Self { path: directory.join("node-id"), place })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The node that used the directory last, if it has not left and is certainly gone.
    pub(super) fn read(&self) -> Option<NodeId> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (node, place) = text.trim().split_once(' ')?;
        // Without a boot id nothing is certain.
        (place == self.place && !place.starts_with(' ')).then(|| value::parse_node(node.as_bytes()))?
    }

    /// Writes the id in place of the one before.
    pub(super) fn write(&self, node: NodeId) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{node} {}\n", self.place))?;
        fs::rename(new, &self.path)
    }

    /// The node has left: nobody has to bury it.
    pub(super) fn remove(&self) {
        let _never_there = fs::remove_file(&self.path);
    }
}

/// A number that the system draws at each start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_read_back_until_the_node_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let file = IdFile::new(directory.path()).unwrap();
        assert_eq!(file.read(), None);
        for bits in [7, u64::MAX] {
            file.write(NodeId::new(bits)).unwrap();
            assert_eq!(file.read(), Some(NodeId::new(bits)));
        }
        let text = fs::read_to_string(file.path()).unwrap();
        for other in [&text[..8], "0000", &text.replace(':', ":1"), &text.replace(' ', " 1")] {
            fs::write(file.path(), other).unwrap();
            assert_eq!(file.read(), None, "{other}");
        }
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("node-id"), &text).unwrap();
        assert_eq!(IdFile::new(copy.path()).unwrap().read(), None, "the server may be alive");
        file.remove();
        assert_eq!(file.read(), None);
    }
}
