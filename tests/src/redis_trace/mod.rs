//! A recorded run of real servers on a real Redis, and its replay.
//!
//! Each server reaches the Redis through a [`TcpProxy`](crate::tcp_proxy::TcpProxy) that writes a [`Tape`]: who sent what, what was
//! answered, and when. `MONITOR` tells in which order the Redis applied the commands of all connections. A [`Recorder`] makes a
//! [`Trace`] of both. [`replay`] reads the commands back as requests, applies them in that order to the reference
//! ([`BucketKeys`](session_core::cluster::BucketKeys)) that the simulation of the cluster has as its store, and compares every answer.

mod tape;
mod resp;
mod monitor;
mod trace;
mod recorder;
mod conversation;
mod scans;
mod report;
mod replay;

pub use recorder::Recorder;
pub use replay::replay;
pub use report::Report;
pub use tape::Tape;
pub use trace::{Beginning, Life, Trace};
