//! All clients are lost and reconnect at once: three per user, with a limit of three.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use shell::client::bench::load::HeldSessions;
use smol::Timer;

use super::both;
use super::memory::hold;
use crate::measure::{Bench, sessions};
use crate::process::{Process, Watch};
use crate::table::{Goal, Row, Table};

const MIB: f64 = (1 << 20) as f64;

struct Storm {
    /// From the first reconnect to the last grant.
    took: Duration,
    /// The resident memory after all have reconnected, as a ratio to that before.
    grown: f64,
    /// The resident memory after all have left, minus that of the fresh server, in bytes.
    kept: f64,
}

pub(super) fn storm(bench: &Bench, table: &mut Table) -> Result<()> {
    let sessions = sessions();
    let (floor, server) = both(bench, &[])?;
    let watch = Watch::begin(&[&floor, &server])?;
    let (floor, server) = (run_storm(bench, &floor, sessions)?, run_storm(bench, &server, sessions)?);
    let disturbed = (watch.is_disturbed()?.into(), 1);
    table.add(Row {
        figure: format!("{sessions} clients lost and back, none refused"),
        unit: "s",
        beside: Some(floor.took.as_secs_f64()),
        server: server.took.as_secs_f64(),
        ratio: Some(server.took.as_secs_f64() / floor.took.as_secs_f64()),
        disturbed,
        ..Row::default()
    });
    table.add(Row {
        figure: "memory with all of them back, of that before".into(),
        unit: "ratio",
        beside: Some(floor.grown),
        server: server.grown,
        goal: Goal::Below(1.05),
        disturbed,
        ..Row::default()
    });
    table.add(Row {
        figure: "memory kept once all have left".into(),
        unit: "MiB",
        beside: Some(floor.kept / MIB),
        server: server.kept / MIB,
        goal: Goal::Below(10.0),
        disturbed,
        ..Row::default()
    });
    Ok(())
}

fn run_storm(bench: &Bench, process: &Process, sessions: u32) -> Result<Storm> {
    /// How long the server has to release memory.
    const REST: Duration = Duration::from_secs(3);

    bench.run(async |executor| {
        let empty = process.memory()?;
        let held = hold(&process.url, sessions, executor).await?;
        let before = process.memory()?;
        held.drop_all().await;
        let began = Instant::now();
        let held = HeldSessions::open(&process.url, sessions, 1024, executor).await;
        let took = began.elapsed();
        let counts = held.counts();
        ensure!(counts.cycles == u64::from(sessions) && counts.refused == 0, "not all are back: {counts:?}");
        Timer::after(REST).await;
        let grown = process.memory()? / before;
        held.drop_all().await;
        Timer::after(REST).await;
        Ok(Storm { took, grown, kept: process.memory()? - empty })
    })
}
