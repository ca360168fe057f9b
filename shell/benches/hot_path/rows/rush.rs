//! A thousand connections authenticate at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use shell::client::bench::load::Users;
use shell::client::{Connection, Error, Url};
use smol::Executor;

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
    one_round(bench, &server)?;
    let rounds: Vec<Rush> = (0..ROUNDS).map(|_| one_round(bench, &server)).collect::<Result<_>>()?;
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

fn one_round(bench: &Bench, server: &Process) -> Result<Rush> {
    let watch = Watch::begin(&[server])?;
    let uncontended = rate(bench, server, SESSIONS, SESSIONS)?;
    let some_users = rate(bench, server, 100, 300)?;
    let one_user = rate(bench, server, 1, 3)?;
    Ok(Rush { uncontended, some_users, one_user, is_disturbed: watch.is_disturbed()? })
}

/// The decisions per second when each of a thousand users signs in once, as the median of some rounds.
pub(super) fn uncontended(bench: &Bench, server: &Process) -> Result<f64> {
    let rates: Vec<f64> = (0..ROUNDS).map(|_| rate(bench, server, SESSIONS, SESSIONS)).collect::<Result<_>>()?;
    Ok(median(&rates, |&rate| rate))
}

/// The decisions per second when the connections belong to `users` users. Exactly `granted` sessions must be granted.
fn rate(bench: &Bench, server: &Process, users: u32, granted: u32) -> Result<f64> {
    let (admitted, took) = bench.run(async |executor| at_once(&server.url, users, executor).await)?;
    ensure!(admitted == granted, "{admitted} were admitted instead of {granted}");
    Ok(f64::from(SESSIONS) / took.as_secs_f64())
}

/// Opens the connections, authenticates all of them at the same time, and returns how many were admitted and how long it
/// took.
async fn at_once(url: &Url, users: u32, executor: &Arc<Executor<'static>>) -> Result<(u32, Duration)> {
    let mut connections = Vec::new();
    for number in 0..SESSIONS {
        connections.push((Connection::open(url).await?, Users::name(number % users)));
    }
    let began = Instant::now();
    let tasks = connections.into_iter().map(|(mut connection, user)| {
        executor.spawn(async move {
            let admitted = match connection.authenticate(&user).await {
                Ok(_) => Ok(1),
                Err(Error::Denied { .. }) => Ok(0),
                Err(error) => Err(error),
            };
            (connection, admitted, Instant::now())
        })
    });
    let (mut admitted, mut last, mut leaving) = (0, began, Vec::new());
    for (connection, answer, at) in join_all(tasks).await {
        admitted += answer?;
        last = last.max(at);
        leaving.push(executor.spawn(connection.bye()));
    }
    for left in join_all(leaving).await {
        left?;
    }
    Ok((admitted, last - began))
}
