//! Full cycles: connect, upgrade, HELLO, AUTHENTICATE, its reply, BYE, BYE_SUCCESS, close.

use std::time::Duration;

use anyhow::Result;
use shell::client::bench::load::LoadProfile;

use super::{KNOWN, both};
use crate::measure::{Bench, Load, Round};
use crate::process::Process;
use crate::system_calls::SystemCalls;
use crate::table::{Goal, Row, Table};

/// How long strace is attached.
const TRACED: Duration = Duration::from_secs(1);

pub(super) fn cycles(bench: &Bench, table: &mut Table) -> Result<()> {
    let (floor, server) = both(bench, &[])?;
    for (at_once, rate, cpu) in [(64, 1.05, 1.0), (16, 1.0, 1.02)] {
        let load = Load::new(KNOWN, LoadProfile::Concurrency(at_once));
        let rounds = bench.in_turns([&floor, &server], load)?;
        let figure = format!("full cycles, {at_once} at once");
        add(
            table,
            &rounds,
            &figure,
            [Goal::AtLeast { ratio: rate, of: "floor" }, Goal::AtMost { ratio: cpu, of: "floor" }],
        );
        count_system_calls(bench, table, [&floor, &server], &figure, load)?;
    }
    Ok(())
}

/// Adds the rate, and the processor time of one cycle, of the second server beside the first.
pub(super) fn add(table: &mut Table, rounds: &[Round<2>], figure: &str, [rate, cpu]: [Goal; 2]) {
    table.add(Row::of_rounds(rounds, figure, "per second", rate, |run| run.per_second));
    let figure = format!("{figure}: processor time of one");
    table.add(Row::of_rounds(rounds, &figure, "µs", cpu, |run| run.cpu_micros));
}

fn count_system_calls(
    bench: &Bench,
    table: &mut Table,
    servers: [&Process; 2],
    figure: &str,
    load: Load,
) -> Result<()> {
    let mut counted = Vec::new();
    for server in servers {
        let work = || bench.load(server, &servers, Load { duration: TRACED, ..load });
        let Some((calls, run)) = SystemCalls::count(server, &bench.directory, work)? else {
            table.note(&format!("{figure}: system calls are not counted, strace is not there or may not attach"));
            return Ok(());
        };
        counted.push((calls.per_cycle(run.counts.cycles), calls.text(run.counts.cycles)));
    }
    if let [(floor, floor_text), (server, server_text)] = &counted[..] {
        table.add(Row {
            figure: format!("{figure}: system calls of one"),
            unit: "calls",
            beside: Some(*floor),
            server: *server,
            ratio: Some(server / floor),
            disturbed: (0, 1),
            ..Row::default()
        });
        table.note(&format!("  floor:  {floor_text}\n  server: {server_text}"));
    }
    Ok(())
}
