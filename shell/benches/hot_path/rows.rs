//! What is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use shell::client::load::{Held, Pace, Users};
use shell::client::{Connection, Error, Url, User};
use smol::{Executor, Timer};

use crate::measure::{Bench, Pair, ROUNDS, disturbed, median, sessions};
use crate::process::Process;
use crate::stock;
use crate::table::{Row, Table};

type Measure = fn(&Bench, &mut Table) -> Result<()>;

/// All of it, in the order in which it is printed.
pub(crate) const ALL: [(&str, Measure); 7] = [
    ("cycles", cycles),
    ("latency", latency),
    ("memory", memory),
    ("rush", rush),
    ("restart", restart),
    ("storm", storm),
    ("known", known),
];

/// What takes too long for every day.
pub(crate) fn is_long(name: &str) -> bool {
    name == "known"
}

const KNOWN: u32 = 1_000_000;
const RUN: Duration = Duration::from_secs(3);

/// The floor, and a server that knows so many users.
fn both(bench: &Bench, known: u32, options: &[&str]) -> Result<(Process, Process)> {
    let data = bench.place.join(format!("data-{known}"));
    // Once, so that the directory is as a server makes it.
    Process::server(&data, &[])?.kill()?;
    stock::know_users(&data, known)?;
    Ok((Process::floor()?, Process::server(&data, options)?))
}

fn cycles(bench: &Bench, table: &mut Table) -> Result<()> {
    let (floor, server) = both(bench, KNOWN, &[])?;
    for (at_once, goal, is_enough) in [(64, "≥ 0.92 × floor", 0.92), (16, "≥ 0.88 × floor", 0.88)] {
        let pairs = bench.pairs(&floor, &server, Users(KNOWN), Pace::Concurrency(at_once), RUN)?;
        add_cycles(table, &pairs, &format!("full cycles, {at_once} at once"), goal, is_enough);
    }
    Ok(())
}

fn add_cycles(table: &mut Table, pairs: &[Pair], figure: &str, goal: &'static str, is_enough: f64) {
    let ratio = median(pairs, |(floor, server)| server.per_second / floor.per_second);
    table.add(Row {
        figure: figure.into(),
        unit: "per second",
        floor: Some(median(pairs, |(floor, _)| floor.per_second)),
        server: median(pairs, |(_, server)| server.per_second),
        ratio: Some(ratio),
        goal,
        is_met: ratio >= is_enough,
        disturbed: disturbed(pairs),
    });
    let ratio = median(pairs, |(floor, server)| server.cpu_micros / floor.cpu_micros);
    table.add(Row {
        figure: format!("{figure}: processor time of one"),
        unit: "µs",
        floor: Some(median(pairs, |(floor, _)| floor.cpu_micros)),
        server: median(pairs, |(_, server)| server.cpu_micros),
        ratio: Some(ratio),
        goal: "≤ 1.20 × floor",
        is_met: ratio <= 1.2,
        disturbed: disturbed(pairs),
    });
}

fn latency(bench: &Bench, table: &mut Table) -> Result<()> {
    let (floor, server) = both(bench, KNOWN, &[])?;
    let pairs = bench.pairs(&floor, &server, Users(KNOWN), Pace::Concurrency(64), Duration::from_secs(1))?;
    let rate = median(&pairs, |(floor, _)| floor.per_second) / 2.0;
    let pairs = bench.pairs(&floor, &server, Users(KNOWN), Pace::Rate(rate), RUN)?;
    for (quantile, name, goal, most) in
        [(0.5, "p50", "≤ 1 ms", 1.0), (0.99, "p99", "≤ 5 ms", 5.0), (0.999, "p99.9", "≤ 15 ms", 15.0)]
    {
        let millis = |run: &crate::measure::Run| run.counts.sign_in.value_at_quantile(quantile) as f64 / 1e6;
        let value = median(&pairs, |(_, server)| millis(server));
        table.add(Row {
            figure: format!("AUTHENTICATE to reply at {rate:.0}/s, open loop, {name}"),
            unit: "ms",
            floor: Some(median(&pairs, |(floor, _)| millis(floor))),
            server: value,
            ratio: None,
            goal,
            is_met: value <= most,
            disturbed: disturbed(&pairs),
        });
    }
    Ok(())
}

fn memory(bench: &Bench, table: &mut Table) -> Result<()> {
    let sessions = sessions();
    // The floor sends no pings, so it is at rest at once.
    let (floor, server) = both(bench, KNOWN, &["--ping-interval", "2s"])?;
    let per_session = |process: &Process| {
        bench.run(async |executor| {
            let before = process.memory()?;
            let held = hold(&process.url, sessions, executor).await?;
            Timer::after(Duration::from_secs(3)).await;
            ensure!(held.counts().failures.is_empty(), "sessions were lost: {:?}", held.counts().failures);
            let after = process.memory()?;
            held.vanish().await;
            Ok((after - before) / f64::from(sessions))
        })
    };
    let (floor, server) = (per_session(&floor)?, per_session(&server)?);
    table.add(Row {
        figure: format!("resident memory of an idle session, of {sessions}, pinged"),
        unit: "bytes",
        floor: Some(floor),
        server,
        ratio: Some(server / floor),
        goal: "≤ 1.25 × floor",
        is_met: server <= 1.25 * floor,
        disturbed: (0, 1),
    });
    Ok(())
}

async fn hold(url: &Url, sessions: u32, executor: &Arc<Executor<'static>>) -> Result<Held> {
    let held = Held::open(url, sessions, 64, executor).await;
    let counts = held.counts();
    ensure!(counts.cycles == u64::from(sessions) && counts.refused == 0, "not all are held: {:?}", counts.failures);
    Ok(held)
}

/// A thousand connections authenticate at once.
fn rush(bench: &Bench, table: &mut Table) -> Result<()> {
    const SESSIONS: u32 = 1000;

    let (_, server) = both(bench, KNOWN, &[])?;
    let mut rates: [Vec<f64>; 3] = [const { Vec::new() }; 3];
    for _ in 0..=ROUNDS {
        for ((users, granted), rates) in [(SESSIONS, SESSIONS), (100, 300), (1, 3)].into_iter().zip(&mut rates) {
            let (admitted, took) = bench.run(async |executor| at_once(&server.url, SESSIONS, users, executor).await)?;
            ensure!(admitted == granted, "{admitted} were admitted instead of {granted}");
            rates.push(f64::from(SESSIONS) / took.as_secs_f64());
        }
    }
    // The first round does not count.
    let [uncontended, some, one] = rates.map(|rates| rates[1..].to_vec());
    for (figure, rates) in [("100 users × 10 sign-ins", some), ("1 user × 1000 sign-ins", one)] {
        let ratios: Vec<f64> = rates.iter().zip(&uncontended).map(|(rate, uncontended)| rate / uncontended).collect();
        let ratio = median(&ratios, |&ratio| ratio);
        table.add(Row {
            figure: format!("{figure} at once, exact (beside: 1000 users × 1)"),
            unit: "decisions per second",
            floor: Some(median(&uncontended, |&rate| rate)),
            server: median(&rates, |&rate| rate),
            ratio: Some(ratio),
            goal: "≥ 0.9 × uncontended",
            is_met: ratio >= 0.9,
            disturbed: (0, ROUNDS),
        });
    }
    Ok(())
}

/// Opens so many connections, has all of them authenticate at the same time as one of so many users, and says how many
/// were admitted and how long that took.
async fn at_once(url: &Url, sessions: u32, users: u32, executor: &Arc<Executor<'static>>) -> Result<(u32, Duration)> {
    let mut connections = Vec::new();
    for number in 0..sessions {
        connections.push((Connection::open(url).await?, Users::name(number % users)));
    }
    let began = Instant::now();
    let tasks = connections.into_iter().map(|(mut connection, user)| {
        executor.spawn(async move {
            let admitted = match connection.authenticate(&user).await {
                Ok(_) => Ok(1),
                Err(Error::LimitReached { .. }) => Ok(0),
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

/// A server that was killed left a million slots behind.
fn restart(bench: &Bench, table: &mut Table) -> Result<()> {
    const USERS: u32 = 333_334;

    let data = bench.place.join("data");
    let (mut listening, mut admitting) = (Vec::new(), Vec::new());
    for round in (0..).take(ROUNDS) {
        Process::server(&data, &[])?.kill()?;
        stock::know_users(&data, KNOWN)?;
        stock::leave_slots(&data, USERS)?;
        let began = Instant::now();
        let server = Process::server(&data, &[])?;
        listening.push(began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        let mut user = User::new(&server.url, &Users::name(round * 1000));
        smol::block_on(user.connect())?;
        admitting.push(began.elapsed().as_secs_f64() * 1e3);
        smol::block_on(async {
            ensure!(user.connect().await?.connections == 2 && user.connect().await?.connections == 3, "no third slot");
            ensure!(matches!(user.connect().await, Err(Error::LimitReached { .. })), "a fourth slot");
            Ok(())
        })?;
    }
    let first = median(&admitting, |&millis| millis);
    table.add(Row {
        figure: "first admission after SIGKILL with 1,000,000 stale slots".into(),
        unit: "ms from listening",
        floor: None,
        server: first,
        ratio: None,
        goal: "≤ 50 ms",
        is_met: first <= 50.0,
        disturbed: (0, ROUNDS),
    });
    table.add(Row {
        figure: "the same server's start, 1,000,000 users known".into(),
        unit: "ms until it listens",
        floor: None,
        server: median(&listening, |&millis| millis),
        ratio: None,
        goal: "none",
        is_met: true,
        disturbed: (0, ROUNDS),
    });
    Ok(())
}

/// All clients are lost and back at once, three of each user, with a limit of three.
fn storm(bench: &Bench, table: &mut Table) -> Result<()> {
    let sessions = sessions();
    let (floor, server) = both(bench, KNOWN, &[])?;
    let through = |process: &Process| {
        bench.run(async |executor| {
            let empty = process.memory()?;
            let held = hold(&process.url, sessions, executor).await?;
            let before = process.memory()?;
            held.vanish().await;
            let began = Instant::now();
            let held = Held::open(&process.url, sessions, 1024, executor).await;
            let took = began.elapsed();
            let counts = held.counts();
            ensure!(counts.cycles == u64::from(sessions) && counts.refused == 0, "not all are back: {counts:?}");
            let after = process.memory()?;
            held.vanish().await;
            Timer::after(Duration::from_secs(3)).await;
            Ok((took, after / before, (process.memory()? - empty) / f64::from(1 << 20)))
        })
    };
    let (floor, _, floor_left) = through(&floor)?;
    let (took, grown, left) = through(&server)?;
    let row = |figure: String, unit, floor, server, goal, is_met| Row {
        figure,
        unit,
        floor,
        server,
        ratio: None,
        goal,
        is_met,
        disturbed: (0, 1),
    };
    let back = format!("{sessions} clients lost and back, none refused");
    table.add(row(back, "s", Some(floor.as_secs_f64()), took.as_secs_f64(), "all", true));
    let level = "memory then, of what it was before";
    table.add(row(level.into(), "ratio", None, grown, "≤ 1.05", grown <= 1.05));
    table.add(row("memory kept 3 s after all have left".into(), "MiB", Some(floor_left), left, "≤ 10", left <= 10.0));
    Ok(())
}

fn known(bench: &Bench, table: &mut Table) -> Result<()> {
    for known in [1_000, 1_000_000, 10_000_000] {
        let (floor, server) = both(bench, known, &[])?;
        let pairs = bench.pairs(&floor, &server, Users(known), Pace::Concurrency(64), RUN)?;
        add_cycles(table, &pairs, &format!("full cycles, 64 at once, {known} users known"), "≥ 0.92 × floor", 0.92);
    }
    Ok(())
}
