//! Reads the files that a configuration names: passwords, certificates and keys.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::runtime::access::{self, Right};

const MAX_BYTES: u64 = 1 << 20;

/// The bytes of this file, at most 1 MiB.
///
/// # Errors
/// It cannot be read, or is larger. Says which right is missing.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| access::explained(error, path, Right::Read))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(io::Error::other("it is larger than 1 MiB")) } else { Ok(bytes) }
}
