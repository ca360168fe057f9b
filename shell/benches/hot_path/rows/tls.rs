//! Full cycles over TLS: with new handshakes, as of devices that were never here, and with resumed ones.

use anyhow::{Result, ensure};
use shell::client::bench::load::LoadProfile;

use super::{KNOWN, cycles, server};
use crate::measure::{Bench, Load, Round, median};
use crate::process::{Certificate, Process};
use crate::table::{Goal, Row, Table};

pub(super) fn tls(bench: &Bench, table: &mut Table) -> Result<()> {
    let certificate = Certificate::new(&bench.directory)?;
    let options = certificate.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let floor = certificate.speak_tls(Process::floor(&options)?)?;
    let server = certificate.speak_tls(server(bench, KNOWN, &options)?)?;
    for (resumes_tls, handshakes) in [(false, "new"), (true, "resumed")] {
        let load = Load { resumes_tls, ..Load::new(KNOWN, LoadProfile::Concurrency(16)) };
        let rounds = bench.in_turns([&floor, &server], load)?;
        let figure = format!("full cycles over TLS, 16 at once, {handshakes} handshakes");
        cycles::add(table, &rounds, &figure, [Goal::None, Goal::None]);
        if resumes_tls {
            let share = |run: &crate::measure::Run| run.counts.resumed as f64 / run.counts.cycles as f64;
            let (beside, server) =
                (median(&rounds, |round: &Round<2>| share(&round[0])), median(&rounds, |round| share(&round[1])));
            ensure!(beside > 0.0, "not even the floor resumes");
            table.add(Row {
                figure: "of these, handshakes that were resumed".into(),
                unit: "share",
                beside: Some(beside),
                server,
                ..Row::default()
            });
        }
    }
    Ok(())
}
