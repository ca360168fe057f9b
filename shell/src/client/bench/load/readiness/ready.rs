//! What is waited for, and what has happened.

use std::os::fd::BorrowedFd;

/// A socket that is waited for.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Watched<'a> {
    pub(in super::super) socket: BorrowedFd<'a>,
    pub(in super::super) key: u64,
    /// Whether it also waits for room to send.
    pub(in super::super) sends: bool,
}

/// A socket that can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Ready {
    pub(in super::super) key: u64,
    /// The peer has sent its last byte, or the connection is broken. It must be read to the end.
    pub(in super::super) is_ending: bool,
}
