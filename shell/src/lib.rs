//! The shell around [`session_core`]: sockets, clock, store and signals.

pub mod store;
