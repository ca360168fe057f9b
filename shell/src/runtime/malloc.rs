//! Memory that was used and is not any more.

/// Gives it back to the system, as far as the allocator has whole pages of it.
///
/// glibc's gives back by itself only what lies at the end of a heap. After thousands of connections have left, somebody
/// who is still there sits at the end, and all the rest stays: tens of megabytes, of which one is in use.
///
/// It takes a moment, for which whoever allocates from the same heap waits: milliseconds for tens of megabytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: it may be called at any time from any thread (malloc_trim(3)); no memory that is in use is touched.
    let _whether_any_was = unsafe { libc::malloc_trim(0) };
}

/// Other allocators see to it themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
