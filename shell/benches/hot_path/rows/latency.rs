//! The time from AUTHENTICATE to its reply, at half the floor's maximum rate.

use std::time::Duration;

use anyhow::Result;
use shell::client::bench::load::{LoadProfile, Users};

use super::{KNOWN, RUN, both};
use crate::measure::{Bench, Load, disturbed, median};
use crate::table::{Goal, Row, Table};

pub(super) fn latency(bench: &Bench, table: &mut Table) -> Result<()> {
    let (floor, server) = both(bench, &[])?;
    let closed = Load { users: Users(KNOWN), profile: LoadProfile::Concurrency(64), duration: Duration::from_secs(1) };
    let rate = median(&bench.in_turns([&floor], closed)?, |[floor]| floor.per_second) / 2.0;
    let open = Load { users: Users(KNOWN), profile: LoadProfile::Rate(rate), duration: RUN };
    let rounds = bench.in_turns([&floor, &server], open)?;
    for (quantile, name, goal) in [(0.5, "p50", 1.0), (0.99, "p99", 5.0), (0.999, "p99.9", 15.0)] {
        table.add(Row {
            figure: format!("AUTHENTICATE to reply at {rate:.0}/s, open loop, {name}"),
            unit: "ms",
            beside: Some(median(&rounds, |[floor, _]| floor.sign_in_millis(quantile))),
            server: median(&rounds, |[_, server]| server.sign_in_millis(quantile)),
            ratio: None,
            goal: Goal::Below(goal),
            disturbed: disturbed(&rounds),
        });
    }
    Ok(())
}
