//! Full cycles: connect, upgrade, HELLO, AUTHENTICATE, its reply, BYE, BYE_SUCCESS, close.

use anyhow::Result;
use shell::client::bench::load::{LoadProfile, Users};

use super::{KNOWN, RUN, both};
use crate::measure::{Bench, Load, disturbed, median};
use crate::table::{Goal, Row, Table};

pub(super) fn cycles(bench: &Bench, table: &mut Table) -> Result<()> {
    let (floor, server) = both(bench, &[])?;
    for (at_once, goal) in [(64, 0.92), (16, 0.88)] {
        let load = Load { users: Users(KNOWN), profile: LoadProfile::Concurrency(at_once), duration: RUN };
        let rounds = bench.in_turns([&floor, &server], load)?;
        table.add(Row {
            figure: format!("full cycles, {at_once} at once"),
            unit: "per second",
            beside: Some(median(&rounds, |[floor, _]| floor.per_second)),
            server: median(&rounds, |[_, server]| server.per_second),
            ratio: Some(median(&rounds, |[floor, server]| server.per_second / floor.per_second)),
            goal: Goal::AtLeast { ratio: goal, of: "floor" },
            disturbed: disturbed(&rounds),
        });
        table.add(Row {
            figure: format!("full cycles, {at_once} at once: processor time of one"),
            unit: "µs",
            beside: Some(median(&rounds, |[floor, _]| floor.cpu_micros)),
            server: median(&rounds, |[_, server]| server.cpu_micros),
            ratio: Some(median(&rounds, |[floor, server]| server.cpu_micros / floor.cpu_micros)),
            goal: Goal::AtMost { ratio: 1.2, of: "floor" },
            disturbed: disturbed(&rounds),
        });
    }
    Ok(())
}
