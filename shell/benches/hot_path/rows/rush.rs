//! A thousand connections authenticate at once.

use anyhow::{Result, ensure};
use shell::client::bench::load::AtOnce;

use super::{KNOWN, server};
use crate::measure::{Bench, ROUNDS, median, quartiles};
use crate::process::{Process, Watch};
use crate::table::{Goal, Row, Table};

const SESSIONS: u32 = 1000;

/// The figures that are compared with the uncontended rate.
const FIGURES: [(&str, Rate); 2] =
    [("100 users × 10 sign-ins", |round| round.some_users), ("1 user × 1000 sign-ins", |round| round.one_user)];

type Rate = fn(&Rush) -> f64;

/// The decisions per second of one round, and whether it was disturbed.
struct Rush {
    uncontended: f64,
    some_users: f64,
    one_user: f64,
    is_disturbed: bool,
}

pub(super) fn rush(bench: &Bench, table: &mut Table) -> Result<()> {
    let server = server(bench, KNOWN, &[])?;
    // The first round only warms up.
    one_round(&server)?;
    let rounds: Vec<Rush> = (0..ROUNDS).map(|_| one_round(&server)).collect::<Result<_>>()?;
    let disturbed = (rounds.iter().filter(|round| round.is_disturbed).count(), ROUNDS);
    for (figure, rate) in FIGURES {
        table.add(Row {
            figure: format!("{figure} at once, exact"),
            unit: "decisions/s",
            beside: Some(median(&rounds, |round| round.uncontended)),
            server: median(&rounds, rate),
            ratio: Some(median(&rounds, |round| rate(round) / round.uncontended)),
            quartiles: Some(quartiles(&rounds, |round| rate(round) / round.uncontended)),
            goal: Goal::AtLeast { ratio: 0.95, of: "1000 users × 1" },
            disturbed,
            ..Row::default()
        });
    }
    Ok(())
}

fn one_round(server: &Process) -> Result<Rush> {
    let watch = Watch::begin(&[server])?;
    let uncontended = rate(server, SESSIONS, SESSIONS)?;
    let some_users = rate(server, 100, 300)?;
    let one_user = rate(server, 1, 3)?;
    Ok(Rush { uncontended, some_users, one_user, is_disturbed: watch.is_disturbed()? })
}

/// The decisions per second when each of a thousand users signs in once, as the median of some rounds.
pub(super) fn uncontended(server: &Process) -> Result<f64> {
    let rates: Vec<f64> = (0..ROUNDS).map(|_| rate(server, SESSIONS, SESSIONS)).collect::<Result<_>>()?;
    Ok(median(&rates, |&rate| rate))
}

/// The decisions per second when the connections belong to `users` users. Exactly `granted` sessions must be granted.
fn rate(server: &Process, users: u32, granted: u32) -> Result<f64> {
    let counts = AtOnce { url: server.url.clone(), sessions: SESSIONS, users }.run()?;
    ensure!(counts.granted == granted && counts.evicted == 0, "not exactly {granted} were granted: {counts:?}");
    Ok(f64::from(SESSIONS) / counts.took.as_secs_f64())
}
