//! Undoes a commit that a kill cut short while LMDB wrote its meta page through the map.
//!
//! A data file has two meta pages, for the transactions with even and with odd numbers, and the one with the higher number
//! counts. LMDB stores that number last, after the roots of the trees. On x86 it leaves that order to the compiler, and GCC
//! stores a part of the records' root after it. A process that is killed between two of these stores leaves a meta page that
//! counts, with fields of the transaction two before it. Nobody was told of that transaction yet, so the other meta page is
//! the right one. (A meta page that is written with a system call is never cut short by a kill.)
//!
//! In a whole file each page is accounted for: it is a meta page, or in one tree once, or free once. The trees have as many
//! pages and entries as their meta page says. The fields of two transactions together do not fulfil that: each takes pages
//! that were free, and frees others. (Only if every field were of the older one would nothing be amiss. GCC moves one store.)

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::integrity::format;
use super::integrity::{Damage, Node, read, u16_at, u32_at, u64_at};

/// Where a meta page has the tree of the free pages, and that of the records.
const TREES: [usize; 2] = [format::PAGE_HEADER + 24, format::PAGE_HEADER + 72];

/// A page that was changed by the transaction and is not yet marked as written.
const DIRTY: u16 = 0x10;

/// How many pages at the end of a file may never have been written.
const UNWRITTEN: u64 = 1 << 20;

/// Makes the meta page of the transaction before count, if the newest is torn and that one is whole. Whether it did.
///
/// No process may have the file open.
pub(super) fn undo(data_file: &Path) -> io::Result<bool> {
    if cfg!(not(all(target_pointer_width = "64", target_endian = "little"))) {
        return Ok(false);
    }
    let file = match File::options().read(true).write(true).open(data_file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let bytes = file.metadata()?.len();
    let Ok(Some(metas)) = read_metas(&file) else { return Ok(false) };
    let [first, second] = &metas;
    let (newest, other) = if second.transaction > first.transaction { (second, first) } else { (first, second) };
    let is_whole = |meta: &Meta| Account { file: &file, file_bytes: bytes, meta, taken: Vec::new() }.balance().is_ok();
    if is_whole(newest) || !is_whole(other) {
        return Ok(false);
    }
    file.write_all_at(&other.page[format::PAGE_HEADER..], newest.at + format::PAGE_HEADER as u64)?;
    Ok(true)
}

/// A meta page.
struct Meta {
    at: u64,
    page: Vec<u8>,
    page_size: u32,
    last_page: u64,
    transaction: u64,
}

/// Both meta pages, if this is a data file.
fn read_metas(file: &File) -> Result<Option<[Meta; 2]>, Damage> {
    let page = read(file, 0, format::META_BYTES)?;
    let page_size = u32_at(&page, format::PAGE_SIZE)?;
    if u32_at(&page, format::PAGE_HEADER)? != format::MAGIC || !page_size.is_power_of_two() || page_size < 512 {
        return Ok(None);
    }
    let meta = |at: u64| {
        let page = read(file, at, format::META_BYTES)?;
        let [last_page, transaction] = [format::LAST_PAGE, format::TRANSACTION].map(|field| u64_at(&page, field));
        Ok::<_, Damage>(Meta { at, page_size, last_page: last_page?, transaction: transaction?, page })
    };
    Ok(Some([meta(0)?, meta(u64::from(page_size))?]))
}

/// Accounts for the pages of a file, as one meta page has them.
struct Account<'a> {
    file: &'a File,
    file_bytes: u64,
    meta: &'a Meta,
    /// Whether each page is accounted for.
    taken: Vec<bool>,
}

/// How many pages of each kind a tree has, and how many entries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    branch: u64,
    leaf: u64,
    overflow: u64,
    entries: u64,
}

impl Account<'_> {
    fn balance(mut self) -> Result<(), Damage> {
        let pages =
            self.meta.last_page.checked_add(1).filter(|pages| *pages <= self.file_bytes / self.page_size() + UNWRITTEN);
        let pages =
            pages.and_then(|pages| usize::try_from(pages).ok()).ok_or("its last page lies far behind its end")?;
        self.taken = vec![false; pages];
        self.take(0, 2)?;
        let [free_pages, records] = TREES;
        self.tree(free_pages, true)?;
        self.tree(records, false)?;
        match self.taken.iter().position(|taken| !taken) {
            None => Ok(()),
            Some(page) => Err(format!("its page {page} is neither used nor free")),
        }
    }

    /// Accounts for a tree, and for the free pages that it lists.
    fn tree(&mut self, at: usize, lists_free_pages: bool) -> Result<(), Damage> {
        let mut counts = Counts::default();
        let root = u64_at(&self.meta.page, at + 40)?;
        let mut pending: Vec<_> = Some(root).filter(|&root| root != format::NO_PAGE).into_iter().collect();
        while let Some(number) = pending.pop() {
            self.take(number, 1)?;
            let page = read(self.file, number.saturating_mul(self.page_size()), self.meta.page_size as usize)?;
            let (kind, lower) = (u16_at(&page, 10)?, usize::from(u16_at(&page, 12)?));
            if u64_at(&page, 0)? != number || kind & DIRTY != 0 {
                return Err(format!("its page {number} was not written"));
            }
            let is_branch = kind & format::BRANCH != 0;
            *(if is_branch { &mut counts.branch } else { &mut counts.leaf }) += 1;
            for slot in (format::PAGE_HEADER..lower).step_by(2) {
                let node = Node::read(&page, slot)?;
                if is_branch {
                    pending.push(node.child());
                    continue;
                }
                counts.entries += 1;
                let large = if node.is_large() {
                    let first = u64_at(&page, node.data)?;
                    // LMDB may leave a value that has become shorter in as many pages as before.
                    let header = read(self.file, first.saturating_mul(self.page_size()), format::PAGE_HEADER)?;
                    let count = u64::from(u32_at(&header, 12)?);
                    counts.overflow += count;
                    self.take(first, count)?;
                    Some(first)
                } else {
                    None
                };
                if lists_free_pages {
                    let bytes = usize::try_from(node.bytes).map_err(|_| "a list of free pages is too long")?;
                    match large {
                        None => self.take_list(
                            page.get(node.data..node.data + bytes).ok_or("a list of free pages is cut short")?,
                        )?,
                        Some(first) => {
                            let at = first.saturating_mul(self.page_size()).saturating_add(format::PAGE_HEADER as u64);
                            if bytes as u64 > self.file_bytes {
                                return Err("a list of free pages is longer than the file".into());
                            }
                            self.take_list(&read(self.file, at, bytes)?)?;
                        }
                    }
                }
            }
        }
        let field = |number: usize| u64_at(&self.meta.page, at + 8 + 8 * number);
        let expected = Counts { branch: field(0)?, leaf: field(1)?, overflow: field(2)?, entries: field(3)? };
        if counts == expected { Ok(()) } else { Err(format!("a tree has {counts:?}, not {expected:?}")) }
    }

    /// Accounts for the pages of a list: their number, then each.
    fn take_list(&mut self, list: &[u8]) -> Result<(), Damage> {
        let count = usize::try_from(u64_at(list, 0)?).unwrap_or(usize::MAX);
        for entry in 0..count {
            self.take(u64_at(list, entry.saturating_mul(8).saturating_add(8))?, 1)?;
        }
        Ok(())
    }

    fn take(&mut self, first: u64, count: u64) -> Result<(), Damage> {
        let range = usize::try_from(first).ok().zip(usize::try_from(first.saturating_add(count)).ok());
        let pages = range.and_then(|(first, end)| self.taken.get_mut(first..end));
        for taken in pages.ok_or_else(|| format!("its page {first} lies behind its last page"))? {
            if std::mem::replace(taken, true) {
                return Err(format!("its page {first}, or one behind it, is in two places"));
            }
        }
        Ok(())
    }

    fn page_size(&self) -> u64 {
        u64::from(self.meta.page_size)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::super::environment::{DATA_FILE, Durability, Environment};
    use super::*;

    const PAGE: usize = 4096;
    const META: std::ops::Range<usize> = format::PAGE_HEADER..format::META_BYTES;

    fn path(directory: &TempDir) -> std::path::PathBuf {
        directory.path().join(DATA_FILE)
    }

    /// What is wrong with the meta page in this place.
    fn imbalance(file: &File, number: usize) -> Result<(), Damage> {
        let file_bytes = file.metadata().unwrap().len();
        let metas = read_metas(file).unwrap().unwrap();
        Account { file, file_bytes, meta: &metas[number], taken: Vec::new() }.balance()
    }

    /// Adds, changes and removes records, small and large, and calls back after each commit.
    fn churn(environment: &mut Environment, commits: usize, seed: u64, mut after: impl FnMut(usize)) {
        let mut random = fastrand::Rng::with_seed(seed);
        for number in 0..commits {
            let seed = random.u64(..);
            while let Err(error) = change(environment, fastrand::Rng::with_seed(seed)) {
                assert!(matches!(error, heed::Error::Mdb(heed::MdbError::MapFull)), "{error}");
                assert!(environment.grow().unwrap());
            }
            after(number);
        }
    }

    fn change(environment: &Environment, mut random: fastrand::Rng) -> heed::Result<()> {
        let mut txn = environment.write()?;
        for _ in 0..random.usize(1..20) {
            let key = random.u32(..300).to_be_bytes();
            let bytes = [10, 100, 1600, 9000][random.usize(..4)];
            if random.u32(..5) < 2 {
                environment.records.delete(&mut txn, &key)?;
            } else {
                environment.records.put(&mut txn, &key, &vec![7; bytes])?;
            }
        }
        Ok(environment.commit(txn)?)
    }

    #[test]
    fn every_commit_leaves_two_whole_meta_pages() {
        for durability in [Durability::Mapped, Durability::Unsynced] {
            let directory = tempfile::tempdir().unwrap();
            let mut environment = Environment::open(directory.path(), 64 << 20, durability).unwrap();
            let file = File::open(path(&directory)).unwrap();
            churn(&mut environment, 300, 1, |number| {
                for meta in 0..2 {
                    assert_eq!(imbalance(&file, meta), Ok(()), "{durability:?}: commit {number}, meta page {meta}");
                }
            });
            drop(environment);
            assert!(!undo(&path(&directory)).unwrap());
        }
    }

    /// Some fields of the newest meta page are those of the transaction two before it.
    #[test]
    fn torn_commit_is_undone() {
        // Entries and root of the records: what GCC stores after the number. Then other orders.
        let stale = [(104, 120), (112, 120), (72, 120), (72, 128), (88, 128), (56, 72), (24, 72)];
        for (case, (from, to)) in stale.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let mut environment = Environment::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
            let mut before_last = Vec::new();
            churn(&mut environment, 50, case as u64, |_| {
                before_last.push(fs::read(path(&directory)).unwrap()[..2 * PAGE].to_vec());
            });
            drop(environment);
            let mut whole = fs::read(path(&directory)).unwrap();
            let number = |page: usize| u64_at(&whole, page * PAGE + format::TRANSACTION).unwrap();
            let (newest, other) = if number(1) > number(0) { (1, 0) } else { (0, 1) };
            // The meta page in this place before the last commit.
            let former = &before_last[before_last.len() - 2][newest * PAGE..];
            let fields = format::PAGE_HEADER + from..format::PAGE_HEADER + to;
            whole[newest * PAGE..][fields.clone()].copy_from_slice(&former[fields]);
            fs::write(path(&directory), &whole).unwrap();
            assert!(undo(&path(&directory)).unwrap(), "{from}..{to}");
            let after = fs::read(path(&directory)).unwrap();
            assert_eq!(after[newest * PAGE..][META], whole[other * PAGE..][META]);
            assert!(after[2 * PAGE..] == whole[2 * PAGE..], "only the meta page is written");
            assert!(!undo(&path(&directory)).unwrap(), "once");
            let mut environment = Environment::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
            churn(&mut environment, 5, 7, |_| {});
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!undo(&path(&directory)).unwrap(), "no file");
        for bytes in [vec![], vec![7; 10], vec![7; 20_000], vec![0; 20_000]] {
            fs::write(path(&directory), &bytes).unwrap();
            assert!(!undo(&path(&directory)).unwrap());
            assert_eq!(fs::read(path(&directory)).unwrap(), bytes);
        }
    }

    /// A page that two trees refer to is damage that the other meta page does not mend.
    #[test]
    fn file_that_is_damaged_otherwise_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut environment = Environment::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
        churn(&mut environment, 50, 3, |_| {});
        drop(environment);
        let file = File::options().write(true).open(path(&directory)).unwrap();
        for meta in 0..2 {
            file.write_all_at(&[0xff; 8], (meta * PAGE + format::LAST_PAGE) as u64).unwrap();
        }
        assert!(!undo(&path(&directory)).unwrap());
    }
}
