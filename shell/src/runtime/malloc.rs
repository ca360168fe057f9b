//! Returns free memory to the system.

/// Returns the free pages of the allocator to the system.
///
/// By itself, glibc returns only memory at the end of a heap. After thousands of connections have left, a remaining
/// connection usually lies at the end. So tens of megabytes stay, though only one is in use.
///
/// Meanwhile threads that allocate from the same heap wait: milliseconds for tens of megabytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: `malloc_trim` may be called at any time from any thread (malloc_trim(3)). It touches no memory in use.
    let _was_released = unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other allocators return memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
