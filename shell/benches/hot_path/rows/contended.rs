//! One user whose clients all come at once, beside as many users with one client each.

use std::time::Duration;

use anyhow::{Result, ensure};
use shell::client::bench::load::{AtOnce, AtOnceCounts};

use super::{KNOWN, server_in};
use crate::measure::{Bench, ROUNDS, median, quartiles};
use crate::process::{Process, Watch};
use crate::table::{Goal, Row, Table};

const SESSIONS: u32 = 200;

const LIMIT: u32 = 3;

/// How often each is measured in a round, in turns. One time takes some milliseconds.
const REPEATS: u32 = 20;

/// The decisions per second of one round.
struct Rates {
    uncontended: f64,
    denied: f64,
    evicted: f64,
    is_disturbed: bool,
}

pub(super) fn contended(bench: &Bench, table: &mut Table) -> Result<()> {
    let deny = server_in(bench, "deny", KNOWN, &[])?;
    let evict = server_in(bench, "evict", KNOWN, &["--when-full", "evict-oldest"])?;
    // The first round only warms up.
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let rates = one_round(&deny, &evict)?;
        if round > 0 {
            rounds.push(rates);
        }
    }
    let disturbed = (rounds.iter().filter(|round| round.is_disturbed).count(), ROUNDS);
    let row = |figure: String, beside: fn(&Rates) -> f64, rate: fn(&Rates) -> f64, goal| Row {
        figure,
        unit: "decisions/s",
        beside: Some(median(&rounds, beside)),
        server: median(&rounds, rate),
        ratio: Some(median(&rounds, |round| rate(round) / beside(round))),
        quartiles: Some(quartiles(&rounds, |round| rate(round) / beside(round))),
        goal,
        disturbed,
        ..Row::default()
    };
    table.add(row(
        format!("1 user × {SESSIONS} at once, limit {LIMIT}, exact (beside: {SESSIONS} users × 1)"),
        |round| round.uncontended,
        |round| round.denied,
        Goal::AtLeast { ratio: 0.95, of: "uncontended" },
    ));
    table.add(row(
        "the same, evict-oldest, told after those who left (beside: deny)".into(),
        |round| round.denied,
        |round| round.evicted,
        Goal::None,
    ));
    Ok(())
}

fn one_round(deny: &Process, evict: &Process) -> Result<Rates> {
    let watch = Watch::begin(&[deny, evict])?;
    let [mut uncontended, mut denied, mut evicted] = [Duration::ZERO; 3];
    for _ in 0..REPEATS {
        let counts = at_once(deny, SESSIONS)?;
        ensure!(counts.granted == SESSIONS && counts.evicted == 0, "not all were granted: {counts:?}");
        uncontended += counts.took;
        let counts = at_once(deny, 1)?;
        ensure!(counts.granted == LIMIT && counts.evicted == 0, "not exactly {LIMIT} were granted: {counts:?}");
        denied += counts.took;
        let counts = at_once(evict, 1)?;
        let left = counts.evicted + counts.superseded;
        ensure!(counts.refused == 0 && left == SESSIONS - LIMIT, "not exactly {LIMIT} stay: {counts:?}");
        ensure!(counts.most_held <= LIMIT, "one was told before those who left: {counts:?}");
        evicted += counts.took;
    }
    let rate = |took: Duration| f64::from(SESSIONS * REPEATS) / took.as_secs_f64();
    let [uncontended, denied, evicted] = [uncontended, denied, evicted].map(rate);
    Ok(Rates { uncontended, denied, evicted, is_disturbed: watch.is_disturbed()? })
}

fn at_once(server: &Process, users: u32) -> Result<AtOnceCounts> {
    Ok(AtOnce { url: server.url.clone(), sessions: SESSIONS, users }.run()?)
}
