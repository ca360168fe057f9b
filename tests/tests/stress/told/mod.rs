//! Which clients the server has told that they are in, by the order of its own system calls. Only the calls of this process
//! can be recorded, and only on Linux.
#![cfg(target_os = "linux")]

mod evictions;
mod system_calls;
