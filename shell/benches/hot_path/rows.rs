//! What is measured.

use std::time::Duration;

use anyhow::Result;

use crate::measure::Bench;
use crate::process::Process;
use crate::stock;
use crate::table::Table;

mod cycles;
mod latency;
mod memory;
mod rush;
mod restart;
mod storm;
mod known;

type Measure = fn(&Bench, &mut Table) -> Result<()>;

/// All of it, in the order in which it is printed.
pub(crate) const ALL: [(&str, Measure); 7] = [
    ("cycles", cycles::cycles),
    ("latency", latency::latency),
    ("memory", memory::memory),
    ("rush", rush::rush),
    ("restart", restart::restart),
    ("storm", storm::storm),
    ("known", known::known),
];

/// What takes too long for every day.
pub(crate) fn is_long(name: &str) -> bool {
    name == "known"
}

/// So many users are known to a server, unless the row says otherwise.
const KNOWN: u32 = 1_000_000;
const RUN: Duration = Duration::from_secs(3);

/// The floor, and a server that knows [`KNOWN`] users.
fn both(bench: &Bench, options: &[&str]) -> Result<(Process, Process)> {
    Ok((Process::floor()?, server(bench, KNOWN, options)?))
}

/// A server that knows so many users.
fn server(bench: &Bench, known: u32, options: &[&str]) -> Result<Process> {
    let data = bench.place.join(format!("data-{known}"));
    // Once, so that the directory is as a server makes it.
    Process::server(&data, &[])?.kill()?;
    stock::know_users(&data, known)?;
    Process::server(&data, options)
}
