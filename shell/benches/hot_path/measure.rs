//! How a figure is measured: servers in turns, several rounds, and with a watch on other processes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use shell::client::RootCertificates;
use shell::client::bench::load::{Counts, CycleLoad, LoadProfile, LoadStats, MAX_CONCURRENT, Users};
use shell::runtime::open_files::raise_limit;
use shell::runtime::supervisor::Supervisor;
use shell::runtime::threads::on_threads;
use smol::Executor;

use crate::process::{Process, Watch};

/// How many rounds each figure is measured.
pub(crate) const ROUNDS: usize = 5;

pub(crate) struct Bench {
    pub(crate) threads: u16,
    /// An empty directory.
    pub(crate) directory: PathBuf,
}

/// A load of full cycles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) users: Users,
    pub(crate) profile: LoadProfile,
    pub(crate) duration: Duration,
}

/// The result of one load.
pub(crate) struct Run {
    pub(crate) counts: Counts,
    pub(crate) per_second: f64,
    /// The server's processor time for one cycle, in microseconds.
    pub(crate) cpu_micros: f64,
    pub(crate) is_disturbed: bool,
}

/// One run against each of several processes, one after another.
pub(crate) type Round<const N: usize> = [Run; N];

impl Bench {
    /// Runs work on all threads.
    pub(crate) fn run<T>(&self, work: impl AsyncFnOnce(&Arc<Executor<'static>>) -> T) -> T {
        let executor = Arc::new(Executor::new());
        on_threads(self.threads, &executor, &Supervisor::default(), work(&executor))
    }

    /// Puts the load on each of the processes in turns. A short first round does not count.
    pub(crate) fn in_turns<const N: usize>(&self, processes: [&Process; N], load: Load) -> Result<Vec<Round<N>>> {
        self.each_in_turns(processes.map(|process| (process, load)))
    }

    /// As [`Bench::in_turns`], with a separate load for each process.
    pub(crate) fn each_in_turns<const N: usize>(&self, loads: [(&Process, Load); N]) -> Result<Vec<Round<N>>> {
        let processes = loads.map(|(process, _)| process);
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let runs = loads.map(|(process, load)| {
                let duration = if round == 0 { Duration::from_secs(1) } else { load.duration };
                self.load(process, &processes, Load { duration, ..load })
            });
            let runs: Vec<Run> = runs.into_iter().collect::<Result<_>>()?;
            if round > 0 {
                rounds.push(runs.try_into().unwrap_or_else(|_| unreachable!("a run for each process")));
            }
        }
        Ok(rounds)
    }

    fn load(&self, process: &Process, all: &[&Process], load: Load) -> Result<Run> {
        let Load { users, profile, duration } = load;
        let cycles = CycleLoad {
            url: process.url.clone(),
            root_certificates: RootCertificates::SYSTEM,
            users,
            profile,
            max_concurrent: MAX_CONCURRENT,
            duration,
        };
        let stats = Arc::<LoadStats>::default();
        let (cpu, watch) = (process.cpu()?, Watch::begin(all)?);
        self.run(async |executor| cycles.run(executor, &stats).await);
        let (cpu, is_disturbed) = (process.cpu()? - cpu, watch.is_disturbed()?);
        let counts = stats.counts();
        ensure!(counts.failures.is_empty() && counts.cycles > 0, "cycles failed: {:?}", counts.failures);
        ensure!(counts.not_begun == 0, "{} cycles were not begun", counts.not_begun);
        let per_second = counts.cycles as f64 / duration.as_secs_f64();
        let cpu_micros = cpu.as_secs_f64() * 1e6 / counts.cycles as f64;
        Ok(Run { counts, per_second, cpu_micros, is_disturbed })
    }
}

impl Run {
    /// The time from AUTHENTICATE, or from when it was due, to the reply, in milliseconds.
    pub(crate) fn sign_in_millis(&self, quantile: f64) -> f64 {
        self.counts.sign_in.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// The number of disturbed rounds, and of all rounds.
pub(crate) fn disturbed<const N: usize>(rounds: &[Round<N>]) -> (usize, usize) {
    (rounds.iter().filter(|round| round.iter().any(|run| run.is_disturbed)).count(), rounds.len())
}

/// The median of a figure; zero if there are no items.
pub(crate) fn median<T>(items: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    let mut figures: Vec<f64> = items.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// How many sessions this process and a server can have open.
pub(crate) fn sessions() -> u32 {
    const MAX: u64 = 15_000;
    u32::try_from(raise_limit().saturating_sub(500).min(MAX)).expect("it is below 15,001")
}
