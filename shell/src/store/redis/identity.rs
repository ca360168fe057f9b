//! The id of this node, which lies in the data directory: a process that is restarted can say which node it was before.

use std::fs;
use std::io;
use std::path::PathBuf;

use session_core::NodeId;

use super::value;

/// The file with the id of the node that uses a data directory. Whoever holds the directory's lock may be sure that the process that
/// wrote it is gone.
#[derive(Debug)]
pub(super) struct IdFile(pub PathBuf);

impl IdFile {
    /// The node that used the directory last, if it has not left.
    pub(super) fn read(&self) -> Option<NodeId> {
        value::parse_node(fs::read(&self.0).ok()?.trim_ascii())
    }

    /// Writes the id in place of the one before.
    pub(super) fn write(&self, node: NodeId) -> io::Result<()> {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{}\n", value::node(node)))?;
        fs::rename(new, &self.0)
    }

    /// The node has left: nobody has to bury it.
    pub(super) fn remove(&self) {
        let _never_there = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_read_back_until_the_node_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let file = IdFile(directory.path().join("node-id"));
        assert_eq!(file.read(), None);
        for bits in [7, u64::MAX] {
            file.write(NodeId::new(bits)).unwrap();
            assert_eq!(file.read(), Some(NodeId::new(bits)));
        }
        fs::write(&file.0, "0000").unwrap();
        assert_eq!(file.read(), None, "half an id is none");
        file.remove();
        assert_eq!(file.read(), None);
    }
}
