//! The resident memory of an idle session.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use shell::client::Url;
use shell::client::bench::load::HeldSessions;
use smol::{Executor, Timer};

use super::both;
use crate::measure::{Bench, sessions};
use crate::process::{Process, Watch};
use crate::table::{Goal, Row, Table};

/// The options of a server that pings its idle sessions during the measurement. The floor does not ping.
pub(super) const PINGS: [&str; 2] = ["--ping-interval", "2s"];

pub(super) fn memory(bench: &Bench, table: &mut Table) -> Result<()> {
    let sessions = sessions();
    let (floor, server) = both(bench, &PINGS)?;
    let watch = Watch::begin(&[&floor, &server])?;
    let (floor, server) = (bytes_per_session(bench, &floor, sessions)?, bytes_per_session(bench, &server, sessions)?);
    table.add(Row {
        figure: format!("resident memory of an idle session, of {sessions}, pinged"),
        unit: "bytes",
        beside: Some(floor),
        server,
        ratio: Some(server / floor),
        goal: Goal::AtMost { ratio: 1.25, of: "floor" },
        disturbed: (watch.is_disturbed()?.into(), 1),
        ..Row::default()
    });
    Ok(())
}

/// The resident memory per session in bytes, after a round of pings.
pub(super) fn bytes_per_session(bench: &Bench, process: &Process, sessions: u32) -> Result<f64> {
    bench.run(async |executor| {
        let before = process.memory()?;
        let held = hold(&process.url, sessions, executor).await?;
        Timer::after(Duration::from_secs(3)).await;
        ensure!(held.counts().failures.is_empty(), "sessions were lost: {:?}", held.counts().failures);
        let after = process.memory()?;
        held.drop_all().await;
        Ok((after - before) / f64::from(sessions))
    })
}

/// Opens `sessions` sessions. All must be granted.
pub(super) async fn hold(url: &Url, sessions: u32, executor: &Arc<Executor<'static>>) -> Result<HeldSessions> {
    let held = HeldSessions::open(url, sessions, 64, executor).await;
    let counts = held.counts();
    ensure!(counts.cycles == u64::from(sessions) && counts.refused == 0, "not all are held: {:?}", counts.failures);
    Ok(held)
}
