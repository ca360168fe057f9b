//! Many sessions that do nothing: their memory, a round of pings, and the end of them all.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shell::client::Url;
use shell::client::bench::load::HeldSessions;
use shell::runtime::open_files::raise_limit;
use smol::Timer;

use super::{KNOWN, server};
use crate::measure::Bench;
use crate::process::{Process, Watch};
use crate::table::{Goal, Row, Table};

const WANTED: u64 = 100_000;

/// What each process needs besides.
const OTHER_FILES: u64 = 500;

/// From one address to one port there are fewer ports than this many (`net.ipv4.ip_local_port_range`).
const PER_ADDRESS: u64 = 25_000;

const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How many rounds of pings the processor time is measured over.
const PING_ROUNDS: u32 = 2;

pub(super) fn idle(bench: &Bench, table: &mut Table) -> Result<()> {
    let sessions = sessions(table);
    // One session more of each user for each address.
    let addresses = sessions.div_ceil(PER_ADDRESS);
    let listen: Vec<String> = (2..=addresses).map(|number| format!("127.0.0.{number}:0")).collect();
    let limit = (3 * addresses).to_string();
    let mut options = vec!["--ping-interval", "10s", "--limit", &limit];
    for address in &listen {
        options.extend(["--listen", address]);
    }
    let server = server(bench, KNOWN, &options)?;
    let urls = server.urls()?;
    ensure!(urls.len() as u64 == addresses, "it listens at {urls:?}");
    measure(bench, table, server, &urls, u32::try_from(sessions)?)
}

/// How many sessions are held, and why not more.
fn sessions(table: &Table) -> u64 {
    // Root may raise the hard limit, if it has not given up that right.
    let wanted = Some(WANTED + OTHER_FILES);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted });
    let room = match raised {
        Ok(()) => WANTED,
        Err(_) => raise_limit().saturating_sub(OTHER_FILES).min(WANTED),
    };
    if room < WANTED {
        let hard = getrlimit(Resource::Nofile).maximum.map_or_else(|| "none".into(), |hard| hard.to_string());
        let why = raised.err().map_or_else(String::new, |error| format!(" ({error})"));
        table.note(&format!(
            "idle: {room} sessions instead of {WANTED}: a process may open {hard} files, and this one may not raise that{why}"
        ));
    }
    room
}

fn measure(bench: &Bench, table: &mut Table, server: Process, urls: &[Url], sessions: u32) -> Result<()> {
    let watch = Watch::begin(&[&server])?;
    let (memory, pings, drained) = bench.run(async |executor| {
        let before = server.memory()?;
        let mut held = Vec::new();
        let mut rest = sessions;
        for (url, left) in urls.iter().zip((1..=urls.len()).rev()) {
            let share = rest.div_ceil(u32::try_from(left)?);
            let opened = HeldSessions::open(url, share, 256, executor).await;
            let counts = opened.counts();
            ensure!(
                counts.cycles == u64::from(share) && counts.refused == 0,
                "not all are held: {:?}",
                counts.failures
            );
            held.push(opened);
            rest -= share;
        }
        Timer::after(PING_INTERVAL).await;
        let memory = (server.memory()? - before) / f64::from(sessions);
        let cpu = server.cpu()?;
        Timer::after(PING_INTERVAL * PING_ROUNDS).await;
        let pings = (server.cpu()? - cpu) / PING_ROUNDS;
        let lost: u64 = held.iter().map(|held| held.counts().lost).sum();
        ensure!(lost == 0, "{lost} sessions were lost");
        // The clients answer the close frames meanwhile.
        let drained = smol::unblock(move || server.terminate()).await?;
        for held in held {
            held.drop_all().await;
        }
        anyhow::Ok((memory, pings, drained))
    })?;
    let disturbed = (watch.is_disturbed()?.into(), 1);
    let row = |figure: String, unit, server, goal| Row { figure, unit, server, goal, disturbed, ..Row::default() };
    table.add(row(format!("{sessions} idle sessions: resident memory of one"), "bytes", memory, Goal::Below(3000.0)));
    let micros = pings.as_secs_f64() * 1e6 / f64::from(sessions);
    table.add(row(format!("{sessions} idle sessions: processor time of one ping"), "µs", micros, Goal::None));
    let figure = format!("{sessions} idle sessions: processor time of a round of pings");
    table.add(row(figure, "ms", pings.as_secs_f64() * 1e3, Goal::None));
    let figure = format!("{sessions} idle sessions: from SIGTERM until the server has ended");
    table.add(row(figure, "s", drained.as_secs_f64(), Goal::None));
    Ok(())
}
