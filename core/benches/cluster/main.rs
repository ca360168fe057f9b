//! What a cluster asks of the shared store, and how long it takes to recover, in simulated time.
//!
//! ```sh
//! cargo bench -p session-core -- cluster              # all
//! cargo bench -p session-core -- cluster::failures    # one part: operations, failures or beat
//! ```
//!
//! The nodes are the machines of [`session_core::cluster`]. They share a simulated store: a round trip takes 1 ms, connections
//! are FIFO, and a shard does one request after another (see `store.rs`). All requests that a node sends to a shard at one moment
//! go in one pipeline. Bytes are the encoded records plus an estimate for each request (see `traffic.rs`).
//!
//! Only the last part, `beat`, measures real time.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod operations;
mod failures;
mod beat;
mod world;
mod node;
mod store;
mod traffic;

/// The parts in simulated time.
const PARTS: [(&str, fn()); 2] = [("cluster::operations", operations::print), ("cluster::failures", failures::print)];

fn main() {
    // Cargo hands its arguments to every benchmark. Options are for divan.
    let names: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (part, print) in PARTS {
        if names.is_empty() || names.iter().any(|name| part.contains(name.as_str())) {
            print();
        }
    }
    divan::main();
}
