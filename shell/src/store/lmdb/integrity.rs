//! Checks an LMDB data file for damage before it is mapped.
//!
//! LMDB trusts its file. Reading a page past the end of a truncated file, or a node that points out of its page, ends the
//! process with SIGBUS or worse. So this looks at every page of the two trees first, which takes about as long as reading the
//! file. Damage that still makes sense is not found.
//!
//! A file shorter than its last page number need not be damaged: LMDB never writes a page that a transaction took at the end
//! and freed ("the file may be shorter if the freeDB lists the final pages", mdb.c).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Offsets and flags of LMDB's format, data version 1, on machines with 64-bit words.
pub(super) mod format {
    pub(in super::super) const PAGE_HEADER: usize = 16;
    pub(in super::super) const META_BYTES: usize = PAGE_HEADER + 136;
    pub(in super::super) const MAGIC: u32 = 0xBEEF_C0DE;
    /// Where a meta page has the roots of the free pages' tree and of the records' tree.
    pub(in super::super) const ROOTS: [usize; 2] = [PAGE_HEADER + 64, PAGE_HEADER + 112];
    pub(in super::super) const PAGE_SIZE: usize = PAGE_HEADER + 24;
    pub(in super::super) const LAST_PAGE: usize = PAGE_HEADER + 120;
    pub(in super::super) const TRANSACTION: usize = PAGE_HEADER + 128;
    pub(in super::super) const NO_PAGE: u64 = u64::MAX;
    pub(in super::super) const BRANCH: u16 = 1;
    pub(in super::super) const LEAF: u16 = 2;
    /// The node has the number of its first overflow page instead of data.
    pub(in super::super) const BIG_DATA: u16 = 1;
}

/// What is wrong with a file.
pub(super) type Damage = String;

/// The damage of a data file. `None` if it is whole, or empty, or does not exist.
///
/// LMDB itself checks whether it is an LMDB file.
pub(super) fn check(data_file: &Path) -> io::Result<Option<Damage>> {
    if cfg!(not(all(target_pointer_width = "64", target_endian = "little"))) {
        return Ok(None);
    }
    let file = match File::open(data_file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(None);
    }
    Ok(check_file(&file, bytes).err())
}

fn check_file(file: &File, bytes: u64) -> Result<(), Damage> {
    let first = read(file, 0, format::META_BYTES)?;
    if u32_at(&first, format::PAGE_HEADER)? != format::MAGIC {
        return Ok(());
    }
    let page_size = u32_at(&first, format::PAGE_SIZE)?;
    if !page_size.is_power_of_two() || !(512..=32768).contains(&page_size) {
        return Err(format!("its first page gives a page size of {page_size} bytes"));
    }
    let second = read(file, u64::from(page_size), format::META_BYTES)?;
    let newest = match u64_at(&second, format::TRANSACTION)? > u64_at(&first, format::TRANSACTION)? {
        true => second,
        false => first,
    };
    let last_page = u64_at(&newest, format::LAST_PAGE)?;
    let tree = Tree { file, page_size, pages: bytes / u64::from(page_size), last_page };
    let mut pending = Vec::new();
    for root in format::ROOTS {
        pending.push(u64_at(&newest, root)?);
    }
    tree.walk(pending.into_iter().filter(|&root| root != format::NO_PAGE).collect())
}

/// The pages of a data file.
struct Tree<'a> {
    file: &'a File,
    page_size: u32,
    pages: u64,
    last_page: u64,
}

impl Tree<'_> {
    /// Checks every page that can be reached from these.
    fn walk(&self, mut pending: Vec<u64>) -> Result<(), Damage> {
        let mut seen = 0;
        while let Some(number) = pending.pop() {
            seen += 1;
            if seen > self.pages {
                return Err("its pages refer to each other in a circle".into());
            }
            self.reserve_pages(number, 1)?;
            let page = read(self.file, number * u64::from(self.page_size), self.page_size as usize)?;
            let (kind, lower) = (u16_at(&page, 10)?, usize::from(u16_at(&page, 12)?));
            if u64_at(&page, 0)? != number || kind & (format::BRANCH | format::LEAF) == 0 {
                return Err(format!("its page {number} is of the wrong kind"));
            }
            for slot in (format::PAGE_HEADER..lower).step_by(2) {
                let node = Node::read(&page, slot)?;
                let data_bytes = if kind & format::BRANCH != 0 {
                    pending.push(node.child());
                    0
                } else if node.is_large() {
                    let bytes = node.bytes + (format::PAGE_HEADER as u64 - 1);
                    self.reserve_pages(u64_at(&page, node.data)?, bytes / u64::from(self.page_size) + 1)?;
                    8
                } else {
                    node.bytes
                };
                if node.at < lower || node.data as u64 + data_bytes > u64::from(self.page_size) {
                    return Err(format!("a node of its page {number} lies outside of it"));
                }
            }
        }
        Ok(())
    }

    fn reserve_pages(&self, first: u64, count: u64) -> Result<(), Damage> {
        if first.checked_add(count).is_some_and(|end| end <= self.pages) {
            return Ok(());
        }
        Err(format!(
            "it is cut short: page {first} of {} is needed, but it has only {} pages",
            self.last_page.saturating_add(1),
            self.pages
        ))
    }
}

/// A node of a page: a child of a branch, or an entry of a leaf.
pub(super) struct Node {
    /// Where it lies in the page.
    at: usize,
    /// How long its data is.
    pub(super) bytes: u64,
    flags: u16,
    /// Where its data lies in the page, if it is not large.
    pub(super) data: usize,
}

impl Node {
    /// The node that this slot of the page leads to.
    pub(super) fn read(page: &[u8], slot: usize) -> Result<Self, Damage> {
        let at = usize::from(u16_at(page, slot)?);
        let bytes = u64::from(u16_at(page, at)?) | u64::from(u16_at(page, at + 2)?) << 16;
        let flags = u16_at(page, at + 4)?;
        let data = at + 8 + usize::from(u16_at(page, at + 6)?);
        Ok(Self { at, bytes, flags, data })
    }

    /// The page that a node of a branch leads to.
    pub(super) fn child(&self) -> u64 {
        self.bytes | u64::from(self.flags) << 32
    }

    /// Whether the data of an entry lies in pages of its own. Then the node has the number of the first of them.
    pub(super) const fn is_large(&self) -> bool {
        self.flags & format::BIG_DATA != 0
    }
}

pub(super) fn read(file: &File, at: u64, bytes: usize) -> Result<Vec<u8>, Damage> {
    let mut page = vec![0; bytes];
    match file.read_exact_at(&mut page, at) {
        Ok(()) => Ok(page),
        Err(error) => Err(format!("it cannot be read at byte {at}: {error}")),
    }
}

fn bytes_at<const N: usize>(page: &[u8], at: usize) -> Result<[u8; N], Damage> {
    let bytes = page.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().ok_or_else(|| format!("a page refers to its byte {at}, which lies outside of it"))
}

pub(super) fn u16_at(page: &[u8], at: usize) -> Result<u16, Damage> {
    bytes_at(page, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(page: &[u8], at: usize) -> Result<u32, Damage> {
    bytes_at(page, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(page: &[u8], at: usize) -> Result<u64, Damage> {
    bytes_at(page, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::environment::{DATA_FILE, Durability, Environment};
    use super::*;

    const PAGE: usize = 4096;

    /// How many transactions, how many records in all, and how many bytes in each.
    const FILES: [(u32, u32, usize); 4] = [(1, 200, 100), (2, 200, 1000), (2, 200, 9000), (1, 10, FULL)];

    /// With this many bytes, ten records fill their page.
    const FULL: usize = 394;

    /// The data file of an environment.
    struct Subject {
        directory: TempDir,
        file: File,
        whole: Vec<u8>,
    }

    impl Subject {
        fn new((transactions, records, bytes): (u32, u32, usize)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
            for transaction in 1..=transactions {
                let mut txn = environment.write().unwrap();
                for number in 0..records * transaction / transactions {
                    environment.records.put(&mut txn, &number.to_be_bytes(), &vec![1; bytes]).unwrap();
                }
                environment.commit(txn).unwrap();
            }
            drop(environment);
            let path = directory.path().join(DATA_FILE);
            let whole = std::fs::read(&path).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            Self { directory, file, whole }
        }

        fn find(&self) -> Option<Damage> {
            check(&self.directory.path().join(DATA_FILE)).unwrap()
        }

        /// The damage with these bytes at this place.
        fn find_with(&self, at: usize, bytes: &[u8]) -> Option<Damage> {
            self.file.write_all_at(bytes, at as u64).unwrap();
            let damage = self.find();
            self.file.write_all_at(&self.whole[at..at + bytes.len()], at as u64).unwrap();
            damage
        }

        fn word(&self, at: usize) -> u16 {
            u16_at(&self.whole, at).unwrap()
        }

        /// Where the pages of the trees begin: damage in others does not matter.
        fn pages(&self) -> Vec<usize> {
            let pages = (2 * PAGE..self.whole.len()).step_by(PAGE);
            pages.filter(|&page| self.find_with(page, &[0xff; 16]).is_some()).collect()
        }
    }

    #[test]
    fn whole_file_has_no_damage() {
        for records in FILES {
            assert_eq!(Subject::new(records).find(), None, "{records:?}");
        }
        assert_eq!(check(Path::new("no such file")).unwrap(), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(check(file.path()).unwrap(), None);
        check(&file.path().join("not a directory")).unwrap_err();
    }

    #[test]
    fn a_file_cut_short_is_damaged_wherever_it_is_cut() {
        for records in FILES {
            let subject = Subject::new(records);
            let pages = subject.whole.len() / PAGE;
            for left in [pages - 1, pages.div_ceil(2), 1] {
                subject.file.set_len((left * PAGE) as u64).unwrap();
                let damage = subject.find().unwrap();
                let is_told = damage.starts_with("it is cut short") || damage.starts_with("it cannot be read");
                assert!(is_told, "{records:?} {damage}");
            }
        }
    }

    #[test]
    fn a_last_page_that_was_never_written_is_no_damage() {
        for records in FILES {
            let subject = Subject::new(records);
            for meta in [0, PAGE] {
                let at = meta + format::LAST_PAGE;
                let last_page = u64_at(&subject.whole, at).unwrap();
                subject.file.write_all_at(&(last_page + 5).to_le_bytes(), at as u64).unwrap();
            }
            assert_eq!(subject.find(), None, "{records:?}");
        }
    }

    /// Behind its last page a file may have blocks that were allocated for later.
    #[test]
    fn allocated_blocks_behind_the_last_page_are_no_damage() {
        for records in FILES {
            let subject = Subject::new(records);
            let pages = subject.whole.len() / PAGE;
            subject.file.set_len(4 << 20).unwrap();
            assert_eq!(subject.find(), None, "{records:?}");
            if records.2 > PAGE {
                // The last page of a large record can have any content.
                continue;
            }
            subject.file.set_len(((pages - 1) * PAGE) as u64).unwrap();
            subject.file.set_len(4 << 20).unwrap();
            assert!(subject.find().is_some(), "{records:?}");
        }
    }

    #[test]
    fn a_page_that_was_overwritten_is_damage_whatever_is_in_its_place() {
        for records in FILES {
            let subject = Subject::new(records);
            let pages = subject.pages();
            assert!(!pages.is_empty(), "{records:?} {pages:?}");
            for page in pages {
                let number = (page / PAGE) as u64;
                let node = page + usize::from(subject.word(page + format::PAGE_HEADER));
                // The upper half of a page's number, of the size of a large record, and two bytes more in a small one.
                let (beyond, by) = match (subject.word(page + 10), subject.word(node + 4)) {
                    (format::BRANCH, _) => (node + 4, 1_u16),
                    (_, format::BIG_DATA) => (node + 2, 0xff),
                    _ => (node, subject.word(node) + 2),
                };
                let damages = [
                    ("nothing", page, vec![0; PAGE]),
                    ("another page", page, (number + 1).to_le_bytes().to_vec()),
                    ("a page of another kind", page + 10, vec![4, 0]),
                    ("a node at the very end", page + 16, 4095_u16.to_le_bytes().to_vec()),
                    ("a node in the header", page + 16, vec![2, 0]),
                    ("a reference to what is not there", beyond, by.to_le_bytes().to_vec()),
                ];
                for (what, at, bytes) in damages {
                    assert!(subject.find_with(at, &bytes).is_some(), "{records:?}: {what} in page {number}");
                }
            }
            assert_eq!(subject.find(), None);
        }
    }

    #[test]
    fn the_pages_of_a_large_record_are_all_there() {
        for (bytes, pages) in [(8176, 2), (8177, 3), (70_000, 18)] {
            let subject = Subject::new((1, 1, bytes));
            let mut nodes = subject.pages().into_iter().map(|page| page + usize::from(subject.word(page + 16)));
            let node = nodes.find(|node| subject.word(node + 4) == format::BIG_DATA).unwrap();
            let first = node + 8 + usize::from(subject.word(node + 6));
            let last = (subject.whole.len() / PAGE - pages) as u64;
            assert_eq!(subject.find_with(first, &last.to_le_bytes()), None, "{bytes}");
            assert!(subject.find_with(first, &(last + 1).to_le_bytes()).is_some(), "{bytes}");
        }
    }

    #[test]
    fn what_no_tree_refers_to_any_more_may_hold_anything() {
        let subject = Subject::new((2, 200, 1000));
        let pages = subject.pages();
        let left = (2 * PAGE..subject.whole.len()).step_by(PAGE).filter(|page| !pages.contains(page));
        assert!(left.clone().count() > 0);
        for page in left {
            assert_eq!(subject.find_with(page, &[7; PAGE]), None);
        }
    }

    #[test]
    fn pages_that_refer_to_each_other_in_a_circle_are_damage() {
        let subject = Subject::new((1, 200, 1000));
        let branch = subject.pages().into_iter().find(|page| subject.word(page + 10) == format::BRANCH).unwrap();
        let node = branch + usize::from(subject.word(branch + format::PAGE_HEADER));
        let itself = u16::try_from(branch / PAGE).unwrap();
        // It has this one node.
        subject.file.write_all_at(&[18, 0], branch as u64 + 12).unwrap();
        let damage = subject.find_with(node, &itself.to_le_bytes()).unwrap();
        assert_eq!(damage, "its pages refer to each other in a circle");
    }

    #[test]
    fn a_senseless_page_size_is_damage() {
        let subject = Subject::new((1, 1, 10));
        for size in [0_u32, 256, 6000, 65536] {
            let damage = subject.find_with(format::PAGE_SIZE, &size.to_le_bytes());
            assert_eq!(damage.unwrap(), format!("its first page gives a page size of {size} bytes"));
        }
    }

    #[test]
    fn the_first_pages_are_needed_as_far_as_they_say_something() {
        let subject = Subject::new((1, 0, 0));
        subject.file.set_len(4096 + 152).unwrap();
        assert_eq!(subject.find(), None);
        subject.file.set_len(4096 + 151).unwrap();
        assert!(subject.find().unwrap().starts_with("it cannot be read at byte 4096"));
    }

    /// So does LMDB choose (`mdb_env_pick_meta`).
    #[test]
    fn of_two_first_pages_that_are_equally_new_the_first_counts() {
        let mut subject = Subject::new((1, 200, 100));
        let newest = subject.whole[PAGE + format::PAGE_HEADER..PAGE + format::META_BYTES].to_vec();
        subject.file.write_all_at(&newest, format::PAGE_HEADER as u64).unwrap();
        subject.whole[format::PAGE_HEADER..format::META_BYTES].copy_from_slice(&newest);
        let nowhere = 9999_u64.to_le_bytes();
        for root in format::ROOTS {
            assert!(subject.find_with(root, &nowhere).is_some());
            assert_eq!(subject.find_with(PAGE + root, &nowhere), None);
        }
    }
}
