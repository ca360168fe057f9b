//! The figures.

use anyhow::Result;

use crate::measure::Bench;
use crate::process::Process;
use crate::stock;
use crate::table::Table;

mod cycles;
mod latency;
mod tls;
mod threads;
mod memory;
mod rush;
mod contended;
mod restart;
mod storm;
mod known;
mod idle;
mod cluster;

type Measure = fn(&Bench, &mut Table) -> Result<()>;

/// All measurements, in the order of the table.
pub(crate) const ALL: [(&str, Measure); 12] = [
    ("cycles", cycles::cycles),
    ("latency", latency::latency),
    ("tls", tls::tls),
    ("threads", threads::threads),
    ("memory", memory::memory),
    ("rush", rush::rush),
    ("contended", contended::contended),
    ("restart", restart::restart),
    ("storm", storm::storm),
    ("known", known::known),
    ("idle", idle::idle),
    ("cluster", cluster::cluster),
];

/// Whether the measurement runs only with `--full`, because it takes long.
pub(crate) fn is_long(name: &str) -> bool {
    ["tls", "threads", "known", "idle", "cluster"].contains(&name)
}

/// The number of users a server knows, unless the figure says otherwise.
const KNOWN: u32 = 1_000_000;

/// The floor, and a server that knows [`KNOWN`] users.
fn both(bench: &Bench, options: &[&str]) -> Result<(Process, Process)> {
    Ok((Process::floor(&[])?, server(bench, KNOWN, options)?))
}

/// A server that knows `known` users.
fn server(bench: &Bench, known: u32, options: &[&str]) -> Result<Process> {
    server_in(bench, &format!("data-{known}"), known, options)
}

/// As [`server`], with a data directory of this name.
fn server_in(bench: &Bench, name: &str, known: u32, options: &[&str]) -> Result<Process> {
    let data = bench.directory.join(name);
    // The first start creates the data directory.
    Process::server(&data, &[])?.kill();
    stock::write_users(&data, known)?;
    Process::server(&data, options)
}
