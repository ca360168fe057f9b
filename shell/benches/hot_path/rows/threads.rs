//! What more threads bring, up to one for each core.

use anyhow::Result;
use shell::client::bench::load::LoadProfile;

use super::{KNOWN, cycles, server_in};
use crate::measure::{Bench, Load, Round, disturbed, median, quartiles};
use crate::process::Process;
use crate::table::{Goal, Row, Table};

pub(super) fn threads(bench: &Bench, table: &mut Table) -> Result<()> {
    let load = Load::new(KNOWN, LoadProfile::Concurrency(64));
    if bench.threads < 2 {
        table.note("threads: this machine has one core, so there is nothing to compare");
        return Ok(());
    }
    let mut few = 1;
    while few < bench.threads {
        let many = (few * 2).min(bench.threads);
        let floors = [few, many].map(|threads| Process::floor(&["--threads", &threads.to_string()]));
        let servers = [few, many].map(|threads| {
            let data = format!("{few}-{threads}");
            server_in(bench, &data, KNOWN, &["--threads", &threads.to_string()])
        });
        let ([few_floor, many_floor], [few_server, many_server]) = (floors, servers);
        let (few_floor, many_floor, few_server, many_server) = (few_floor?, many_floor?, few_server?, many_server?);
        let rounds = bench.in_turns([&few_floor, &few_server, &many_floor, &many_server], load)?;
        // The larger half follows with the next step, beside twice as many.
        let is_last = many == bench.threads;
        let (smaller, larger): (Vec<_>, Vec<_>) = rounds.into_iter().map(|[a, b, c, d]| ([a, b], [c, d])).unzip();
        cycles::add(table, &smaller, &format!("full cycles, 64 at once, {few} threads"), [Goal::None, Goal::None]);
        if is_last {
            cycles::add(table, &larger, &format!("full cycles, 64 at once, {many} threads"), [Goal::None, Goal::None]);
        }
        add_gain(table, &smaller, &larger, few, many);
        few = many;
    }
    Ok(())
}

/// The rate on `many` threads as a ratio to that on `few`, of the floor and of the server.
fn add_gain(table: &mut Table, smaller: &[Round<2>], larger: &[Round<2>], few: u16, many: u16) {
    let rounds: Vec<_> = smaller.iter().zip(larger).collect();
    let gain = |index: usize| {
        move |(smaller, larger): &(&Round<2>, &Round<2>)| larger[index].per_second / smaller[index].per_second
    };
    let ratio = |round: &(&Round<2>, &Round<2>)| gain(1)(round) / gain(0)(round);
    table.add(Row {
        figure: format!("full cycles on {many} threads, relative to {few}"),
        unit: "ratio of rates",
        beside: Some(median(&rounds, gain(0))),
        server: median(&rounds, gain(1)),
        ratio: Some(median(&rounds, ratio)),
        quartiles: Some(quartiles(&rounds, ratio)),
        disturbed: disturbed(larger),
        ..Row::default()
    });
}
