//! The start of a server after a killed one left a million slots.

use std::time::Instant;

use anyhow::{Result, ensure};
use shell::client::bench::load::Users;
use shell::client::{Error, UserConnections};

use super::KNOWN;
use crate::measure::{Bench, ROUNDS, median};
use crate::process::{Process, Watch};
use crate::stock;
use crate::table::{Goal, Row, Table};

/// Each has three slots.
const USERS: u32 = 333_334;

pub(super) fn restart(bench: &Bench, table: &mut Table) -> Result<()> {
    let data = bench.directory.join("data");
    let (mut listening, mut admitting, mut disturbed) = (Vec::new(), Vec::new(), 0);
    for round in (0..).take(ROUNDS) {
        Process::server(&data, &[])?.kill();
        stock::write_users(&data, KNOWN)?;
        stock::write_stale_slots(&data, USERS)?;
        let watch = Watch::begin(&[])?;
        let began = Instant::now();
        let server = Process::server(&data, &[])?;
        listening.push(began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        let mut user = UserConnections::new(&server.url, &Users::name(round * 1000));
        smol::block_on(user.connect())?;
        admitting.push(began.elapsed().as_secs_f64() * 1e3);
        disturbed += usize::from(watch.is_disturbed_except(&[&server])?);
        smol::block_on(async {
            ensure!(user.connect().await?.connections == 2 && user.connect().await?.connections == 3, "no third slot");
            ensure!(matches!(user.connect().await, Err(Error::Denied { .. })), "a fourth slot");
            Ok(())
        })?;
    }
    table.add(Row {
        figure: "first admission after SIGKILL with 1,000,000 stale slots".into(),
        unit: "ms from listening",
        server: median(&admitting, |&millis| millis),
        goal: Goal::Below(50.0),
        disturbed: (disturbed, ROUNDS),
        ..Row::default()
    });
    table.add(Row {
        figure: "the same server's start, 1,000,000 users known".into(),
        unit: "ms until it listens",
        server: median(&listening, |&millis| millis),
        disturbed: (disturbed, ROUNDS),
        ..Row::default()
    });
    Ok(())
}
