//! The harnesses of all tests.
//!
//! - [`core_simulation`]: sessions and a faulty store on a virtual clock, with the invariants checked after every
//!   step. Proptest and a fuzz target run the same operations over it.
//! - [`simulation`]: several servers, run by the real code, over one faulty store. One seed decides everything.
//! - [`cluster_simulation`]: several nodes of a cluster over shared stores that fail.
//! - [`rule_oracle`]: checks the result of every ledger command. Both simulations use it.
//! - [`told_oracle`]: checks which clients were told that they are in. Both simulations use it.
//! - [`line_oracle`]: checks who waits in line, who passes whom, and who is told that it is its turn.
//! - [`handshake_harness`]: feeds any bytes to the code that runs before the first frame.
//! - [`test_ca`]: a certificate authority for tests.
//! - [`key_provider`]: an identity provider that publishes keys, or fails to.
//! - [`small_disk`]: a disk that a test can fill.
//! - [`test_server`], [`test_process`]: a server on a port of its own, in the process of the test or as another process.
//! - [`client_process`]: the client as its own process.
//! - [`stallable_store`]: a store that a test can stall.
//! - [`raw_client`]: a socket that sends any bytes. [`light_client`]: a client that never blocks, one of many.
//! - [`referee`]: counts from outside who is in, and tells if a user is in more often than allowed. [`crowd`]: clients
//!   that come and go, with their referee.
//! - [`redis_process`], [`redis_sentinels`], [`redis_cluster`]: a Redis, one with replicas that Sentinels watch, several that share the
//!   keys. [`tcp_proxy`], [`fleet`]: a network that fails, and servers that share the Redis.
//! - [`redis_trace`]: records what servers and a Redis say to each other, and replays it with the reference and the checks of the
//!   simulation.
//! - [`waiting`]: waits with a time limit, also for several things at a time.
//! - [`processor_time`]: the processor time of processes and threads.
//! - [`values`]: users, times, limits and other values that many tests use.
//! - [`random`]: random numbers from a seed.
//! - [`policies`]: admission policies of both simulations.

#![allow(clippy::missing_panics_doc, reason = "a harness panics where a test fails, everywhere")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what a test does not expect fails it")]

pub mod core_simulation;
pub mod simulation;
pub mod cluster_simulation;
pub mod random;
pub mod descriptors;
pub mod values;
pub mod policies;
pub mod rule_oracle;
pub mod told_oracle;
pub mod line_oracle;
pub mod handshake_harness;
pub mod test_server;
pub mod test_process;
pub mod process_log;
pub mod client_process;
pub mod programs;
pub mod stallable_store;
pub mod raw_client;
pub mod light_client;
pub mod referee;
pub mod crowd;
pub mod redis_process;
pub mod redis_sentinels;
pub mod redis_cluster;
pub mod redis_trace;
pub mod balancer;
pub mod tcp_proxy;
pub mod fleet;
pub mod waiting;
pub mod processor_time;
pub mod small_disk;
pub mod test_ca;
pub mod key_provider;
