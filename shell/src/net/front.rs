//! Bytes that wait, of which the first go first. An idle connection keeps no memory for them.

/// Moves as many of the first bytes as `buffer` has room for, and returns how many. Frees the memory with the last.
pub(super) fn take_front(bytes: &mut Vec<u8>, buffer: &mut [u8]) -> usize {
    let taken = buffer.len().min(bytes.len());
    buffer[..taken].copy_from_slice(&bytes[..taken]);
    drop_front(bytes, taken);
    taken
}

/// Removes the first bytes. Frees the memory with the last.
pub(super) fn drop_front(bytes: &mut Vec<u8>, count: usize) {
    if count == bytes.len() {
        *bytes = Vec::new();
    } else {
        bytes.drain(..count);
    }
}
