//! Whether the number of known users matters: the figures of servers that know a thousand, a million and ten million
//! users, measured in turns.

use std::time::{Duration, Instant};

use anyhow::Result;
use shell::client::bench::load::LoadProfile;

use super::memory::{PINGS, bytes_per_session};
use super::rush::uncontended;
use super::server;
use crate::measure::{Bench, Load, Round, disturbed, median, quartiles, sessions};
use crate::process::{Process, Watch};
use crate::table::{Goal, Row, Table};

const FEW: u32 = 1_000;
const KNOWN: [u32; 3] = [FEW, 1_000_000, 10_000_000];

/// A figure of one run.
type Figure = fn(&crate::measure::Run) -> f64;

pub(super) fn known(bench: &Bench, table: &mut Table) -> Result<()> {
    let servers = KNOWN.map(|known| server(bench, known, &PINGS));
    let [few, many, most] = servers;
    let servers = [few?, many?, most?];
    let all = servers.each_ref();

    // First: later the sessions would find memory that others have left.
    each(table, all, "resident memory of an idle session, pinged", "bytes", |server| {
        bytes_per_session(bench, server, sessions() / 3)
    })?;
    // The load on each server uses all users that it knows.
    let in_turns = |profile| {
        let loads = [0, 1, 2].map(|index| (all[index], Load::new(KNOWN[index], profile)));
        bench.each_in_turns(loads)
    };
    for at_once in [64, 16] {
        let rounds = in_turns(LoadProfile::Concurrency(at_once))?;
        compare(table, &rounds, &format!("full cycles, {at_once} at once"), "per second", |run| run.per_second);
        let figure = format!("full cycles, {at_once} at once: processor time of one");
        compare(table, &rounds, &figure, "µs", |run| run.cpu_micros);
    }
    let rounds = in_turns(LoadProfile::Rate(4000.0))?;
    let quantiles: [(_, Figure); 2] = [("p50", |run| run.sign_in_millis(0.5)), ("p99", |run| run.sign_in_millis(0.99))];
    for (name, quantile) in quantiles {
        compare(table, &rounds, &format!("AUTHENTICATE to reply at 4000/s, open loop, {name}"), "ms", quantile);
    }
    each(table, all, "1000 users × 1 sign-in at once", "decisions/s", uncontended)?;
    drop(servers);
    let mut starts = Vec::new();
    for known in KNOWN {
        let began = Instant::now();
        drop(Process::server(&bench.directory.join(format!("data-{known}")), &[])?);
        starts.push(began.elapsed());
    }
    let millis = |start: &Duration| start.as_secs_f64() * 1e3;
    table.add(Row {
        figure: "start with 10,000,000 users known (beside: 1,000)".into(),
        unit: "ms until it listens",
        beside: starts.first().map(millis),
        server: starts.last().map(millis).unwrap_or_default(),
        disturbed: (0, 1),
        ..Row::default()
    });
    Ok(())
}

/// Adds the figures of the servers that know more users, compared with the one that knows few.
fn compare(table: &mut Table, rounds: &[Round<3>], figure: &str, unit: &'static str, value: Figure) {
    for (index, known) in KNOWN.into_iter().enumerate().skip(1) {
        table.add(Row {
            figure: format!("{known} users known: {figure}"),
            unit,
            beside: Some(median(rounds, |[few, ..]| value(few))),
            server: median(rounds, |round| value(&round[index])),
            ratio: Some(median(rounds, |round| value(&round[index]) / value(&round[0]))),
            quartiles: Some(quartiles(rounds, |round| value(&round[index]) / value(&round[0]))),
            goal: Goal::Within { tenths: 1, of: "1000 known" },
            disturbed: disturbed(rounds),
            ..Row::default()
        });
    }
}

/// As [`compare`], for a figure that is measured once.
fn each(
    table: &mut Table,
    servers: [&Process; 3],
    figure: &str,
    unit: &'static str,
    measure: impl Fn(&Process) -> Result<f64>,
) -> Result<()> {
    let watch = Watch::begin(&servers)?;
    let [few, many, most] = servers.map(measure);
    let (few, rest) = (few?, [many?, most?]);
    let disturbed = (watch.is_disturbed()?.into(), 1);
    for (known, server) in KNOWN.into_iter().skip(1).zip(rest) {
        table.add(Row {
            figure: format!("{known} users known: {figure}"),
            unit,
            beside: Some(few),
            server,
            ratio: Some(server / few),
            goal: Goal::Within { tenths: 1, of: "1000 known" },
            disturbed,
            ..Row::default()
        });
    }
    Ok(())
}
