//! How a figure is taken: in turns, several times, beside what else the machine does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use shell::client::load::{Counts, Cycles, Pace, Tally, Users};
use shell::threads::on_threads;
use smol::Executor;

use crate::process::{Process, cpu_of_others};

/// How often each pair is measured.
pub(crate) const ROUNDS: usize = 5;

pub(crate) struct Bench {
    pub(crate) threads: u16,
    /// An empty directory.
    pub(crate) place: PathBuf,
}

/// One run of full cycles.
pub(crate) struct Run {
    pub(crate) counts: Counts,
    pub(crate) per_second: f64,
    /// The server's processor time for one, in microseconds.
    pub(crate) cpu_micros: f64,
    pub(crate) is_disturbed: bool,
}

/// The floor's run and the server's.
pub(crate) type Pair = (Run, Run);

impl Bench {
    /// Runs work on all threads.
    pub(crate) fn run<T>(&self, work: impl AsyncFnOnce(&Arc<Executor<'static>>) -> T) -> T {
        let executor = Arc::new(Executor::new());
        on_threads(self.threads, &executor, work(&executor))
    }

    /// Full cycles against both, in turns, after a first pair that does not count.
    pub(crate) fn pairs(
        &self,
        floor: &Process,
        server: &Process,
        users: Users,
        pace: Pace,
        duration: Duration,
    ) -> Result<Vec<Pair>> {
        let ours = [floor.id(), server.id(), std::process::id()];
        let mut pairs = Vec::new();
        for round in 0..=ROUNDS {
            let duration = if round == 0 { Duration::from_secs(1) } else { duration };
            let pair =
                (self.cycles(floor, &ours, users, pace, duration)?, self.cycles(server, &ours, users, pace, duration)?);
            if round > 0 {
                pairs.push(pair);
            }
        }
        Ok(pairs)
    }

    fn cycles(&self, process: &Process, ours: &[u32], users: Users, pace: Pace, duration: Duration) -> Result<Run> {
        let load = Cycles { url: process.url.clone(), users, pace, duration };
        let tally = Arc::<Tally>::default();
        let (cpu, others) = (process.cpu()?, cpu_of_others(ours)?);
        self.run(async |executor| load.run(executor, &tally).await);
        let (cpu, others) = (process.cpu()? - cpu, cpu_of_others(ours)?.saturating_sub(others));
        let counts = tally.counts();
        ensure!(counts.failures.is_empty() && counts.cycles > 0, "cycles failed: {:?}", counts.failures);
        let per_second = counts.cycles as f64 / duration.as_secs_f64();
        let cpu_micros = cpu.as_secs_f64() * 1e6 / counts.cycles as f64;
        Ok(Run { counts, per_second, cpu_micros, is_disturbed: others > duration / 10 })
    }
}

/// How many of them were disturbed, of how many.
pub(crate) fn disturbed(pairs: &[Pair]) -> (usize, usize) {
    (pairs.iter().filter(|(floor, server)| floor.is_disturbed || server.is_disturbed).count(), pairs.len())
}

/// The median of what it finds; zero of nothing.
pub(crate) fn median<T>(of: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    let mut figures: Vec<f64> = of.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// As many file descriptors as the system allows, here and in the servers that are started.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If not, opening fails later on, in words.
    let _as_it_was = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

/// So many sessions as this process and a server may have open.
pub(crate) fn sessions() -> u32 {
    const MOST: u64 = 15_000;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit.saturating_sub(500).min(MOST) as u32
}
