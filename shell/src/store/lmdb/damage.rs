//! Looks for damage in an LMDB data file before it is mapped.
//!
//! LMDB trusts its file: a page past the end of one that was cut short, or a node that points out of its page, ends the
//! process with SIGBUS or worse when it is read. So every page that the two trees refer to is looked at first, which
//! takes about as long as reading the file. What was damaged in a way that still makes sense is not found.
//!
//! A file shorter than its last page number says need not be damaged: LMDB never writes a page that a transaction took
//! at the end and gave back ("the file may be shorter if the freeDB lists the final pages", mdb.c).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Offsets and flags of LMDB's format, data version 1, on machines with 64-bit words.
mod format {
    pub(super) const PAGE_HEADER: usize = 16;
    pub(super) const META_BYTES: usize = PAGE_HEADER + 136;
    pub(super) const MAGIC: u32 = 0xBEEF_C0DE;
    /// Of the free pages' tree and of the records' tree, in a meta page.
    pub(super) const ROOTS: [usize; 2] = [PAGE_HEADER + 64, PAGE_HEADER + 112];
    pub(super) const PAGE_SIZE: usize = PAGE_HEADER + 24;
    pub(super) const LAST_PAGE: usize = PAGE_HEADER + 120;
    pub(super) const TRANSACTION: usize = PAGE_HEADER + 128;
    pub(super) const NO_PAGE: u64 = u64::MAX;
    pub(super) const BRANCH: u16 = 1;
    pub(super) const LEAF: u16 = 2;
    /// A node's data are the number of the first of its overflow pages.
    pub(super) const BIG_DATA: u16 = 1;
}

/// Why a file is not whole, in words.
type Damage = String;

/// What is visibly wrong with the data file; `None` for a file that is whole, or empty, or not there.
///
/// Whether it is a file of LMDB's at all is left to LMDB.
pub(super) fn find(data_file: &Path) -> io::Result<Option<Damage>> {
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
    Ok(check(&file, bytes).err())
}

fn check(file: &File, bytes: u64) -> Result<(), Damage> {
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
    /// Looks at every page that can be reached from these.
    fn walk(&self, mut pending: Vec<u64>) -> Result<(), Damage> {
        let mut seen = 0;
        while let Some(number) = pending.pop() {
            seen += 1;
            if seen > self.pages {
                return Err("its pages refer to each other in a circle".into());
            }
            self.demand(number, 1)?;
            let page = read(self.file, number * u64::from(self.page_size), self.page_size as usize)?;
            let (kind, lower) = (u16_at(&page, 10)?, usize::from(u16_at(&page, 12)?));
            if u64_at(&page, 0)? != number || kind & (format::BRANCH | format::LEAF) == 0 {
                return Err(format!("its page {number} is of the wrong kind"));
            }
            for slot in (format::PAGE_HEADER..lower).step_by(2) {
                let node = usize::from(u16_at(&page, slot)?);
                let low = u64::from(u16_at(&page, node)?) | u64::from(u16_at(&page, node + 2)?) << 16;
                let flags = u16_at(&page, node + 4)?;
                let data = node + 8 + usize::from(u16_at(&page, node + 6)?);
                let data_bytes = if kind & format::BRANCH != 0 {
                    pending.push(low | u64::from(flags) << 32);
                    0
                } else if flags & format::BIG_DATA != 0 {
                    let bytes = low + (format::PAGE_HEADER as u64 - 1);
                    self.demand(u64_at(&page, data)?, bytes / u64::from(self.page_size) + 1)?;
                    8
                } else {
                    low
                };
                if node < lower || data as u64 + data_bytes > u64::from(self.page_size) {
                    return Err(format!("a node of its page {number} lies outside of it"));
                }
            }
        }
        Ok(())
    }

    fn demand(&self, first: u64, count: u64) -> Result<(), Damage> {
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

fn read(file: &File, at: u64, bytes: usize) -> Result<Vec<u8>, Damage> {
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

fn u16_at(page: &[u8], at: usize) -> Result<u16, Damage> {
    bytes_at(page, at).map(u16::from_le_bytes)
}

fn u32_at(page: &[u8], at: usize) -> Result<u32, Damage> {
    bytes_at(page, at).map(u32::from_le_bytes)
}

fn u64_at(page: &[u8], at: usize) -> Result<u64, Damage> {
    bytes_at(page, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::environment::{DATA_FILE, Durability, Environment};
    use super::*;

    /// A file with branches, leaves and overflow pages, and one whose last pages are all of the records' tree.
    fn file_with(values: usize) -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
        let mut txn = environment.write().unwrap();
        for number in 0..200_u32 {
            environment.records.put(&mut txn, &number.to_be_bytes(), &vec![1; values]).unwrap();
        }
        environment.commit(txn).unwrap();
        drop(environment);
        let file = File::options().write(true).open(directory.path().join(DATA_FILE)).unwrap();
        (directory, file)
    }

    #[test]
    fn a_file_that_is_whole_has_no_damage() {
        let (directory, _file) = file_with(1000);
        assert_eq!(find(&directory.path().join(DATA_FILE)).unwrap(), None);
        assert_eq!(find(&directory.path().join("no such file")).unwrap(), None);
    }

    #[test]
    fn a_file_cut_short_is_damaged_wherever_it_is_cut() {
        for values in [100, 1000, 9000] {
            let (directory, file) = file_with(values);
            let path = directory.path().join(DATA_FILE);
            let pages = file.metadata().unwrap().len() / 4096;
            for pages in [pages - 1, pages / 2, 3, 2, 1] {
                file.set_len(pages * 4096).unwrap();
                let damage = find(&path).unwrap().unwrap();
                assert!(damage.starts_with("it is cut short") || damage.starts_with("it cannot be read"), "{damage}");
            }
        }
    }

    #[test]
    fn a_last_page_that_was_never_written_is_no_damage() {
        for values in [100, 1000, 9000] {
            let (directory, file) = file_with(values);
            let path = directory.path().join(DATA_FILE);
            let mut metas = read(&File::open(&path).unwrap(), 0, 8192).unwrap();
            for meta in [0, 4096] {
                let at = meta + format::LAST_PAGE;
                let last_page = u64_at(&metas, at).unwrap();
                metas[at..at + 8].copy_from_slice(&(last_page + 5).to_le_bytes());
            }
            file.write_all_at(&metas, 0).unwrap();
            assert_eq!(find(&path).unwrap(), None);
        }
    }

    #[test]
    fn a_page_that_was_overwritten_is_damage_whatever_is_in_its_place() {
        for values in [100, 1000, 9000] {
            let (directory, file) = file_with(values);
            let path = directory.path().join(DATA_FILE);
            let whole = std::fs::read(&path).unwrap();
            let is_node = |at: usize| matches!(u16_at(&whole, at + 10), Ok(1 | 2)) && at / 4096 > 1;
            let in_use = |at: usize| u64_at(&whole, at).is_ok_and(|number| number == at as u64 / 4096);
            let mut found = 0;
            for page in (0..whole.len()).step_by(4096).filter(|&page| is_node(page) && in_use(page)) {
                let mut damage = |bytes: &[u8], at: usize| {
                    file.write_all_at(bytes, at as u64).unwrap();
                    found += u32::from(find(&path).unwrap().is_some());
                    file.write_all_at(&whole[page..page + 4096], page as u64).unwrap();
                };
                damage(&[0; 4096], page);
                // A node that begins at the very end of the page, and one that begins in its header.
                damage(&4095_u16.to_le_bytes(), page + 16);
                damage(&2_u16.to_le_bytes(), page + 16);
            }
            // A page that no tree refers to any more may hold anything.
            assert!(found >= 6, "{found} with values of {values} bytes");
            assert_eq!(find(&path).unwrap(), None);
        }
    }

    #[test]
    fn a_senseless_page_size_is_damage() {
        let (directory, file) = file_with(10);
        file.write_all_at(&[0; 4], format::PAGE_SIZE as u64).unwrap();
        let damage = find(&directory.path().join(DATA_FILE)).unwrap();
        assert_eq!(damage.unwrap(), "its first page gives a page size of 0 bytes");
    }
}
