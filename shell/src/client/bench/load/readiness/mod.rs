//! Waits until sockets are ready: with epoll(7) where the system is Linux, otherwise with poll(2).

mod ready;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(any(test, not(target_os = "linux")))]
mod poll;

#[cfg(target_os = "linux")]
pub(super) use epoll::Readiness;
#[cfg(not(target_os = "linux"))]
pub(super) use poll::Readiness;
pub(super) use ready::{Ready, Watched};
