//! The time from AUTHENTICATE to its reply, at half the floor's maximum rate.

use std::time::Duration;

use anyhow::Result;
use shell::client::bench::load::LoadProfile;

use super::{KNOWN, both};
use crate::measure::{Bench, Load, Run, disturbed, median};
use crate::table::{Goal, Row, Table};

pub(super) fn latency(bench: &Bench, table: &mut Table) -> Result<()> {
    let (floor, server) = both(bench, &[])?;
    let closed = Load { duration: Duration::from_secs(1), ..Load::new(KNOWN, LoadProfile::Concurrency(64)) };
    let rate = median(&bench.in_turns([&floor], closed)?, |[floor]| floor.per_second) / 2.0;
    let open = Load::new(KNOWN, LoadProfile::Rate(rate));
    let rounds = bench.in_turns([&floor, &server], open)?;
    for (quantile, name, goal) in [(0.5, "p50", 0.4), (0.99, "p99", 2.0), (0.999, "p99.9", 8.0)] {
        let figure = format!("AUTHENTICATE to reply at {rate:.0}/s, open loop, {name}");
        let value = |run: &Run| run.sign_in_millis(quantile);
        table.add(Row::of_rounds(&rounds, &figure, "ms", Goal::Below(goal), value));
    }
    let late = |run: &Run| run.counts.late.value_at_quantile(0.99) as f64 / 1e6;
    let figure = "of that, how late the load itself was, p99".to_owned();
    let (beside, server) = (median(&rounds, |[floor, _]| late(floor)), median(&rounds, |[_, server]| late(server)));
    table.add(Row {
        figure,
        unit: "ms",
        beside: Some(beside),
        server,
        disturbed: disturbed(&rounds),
        ..Row::default()
    });
    Ok(())
}
