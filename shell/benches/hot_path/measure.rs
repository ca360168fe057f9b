//! How a figure is measured: servers in turns, in short slices, several rounds, and with a watch on other processes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shell::client::bench::load::{Counts, CycleLoad, LoadProfile, LoadStats, MAX_CONCURRENT, Users};
use shell::runtime::open_files::raise_limit;
use shell::runtime::supervisor::Supervisor;
use shell::runtime::threads::on_threads;
use smol::Executor;
use tests::processor_time;

use crate::process::{Process, Watch};

/// How many rounds each figure is measured.
pub(crate) const ROUNDS: usize = 7;

/// How long one server is measured before it is another one's turn. What disturbs the machine for longer hits both.
pub(crate) const SLICE: Duration = Duration::from_secs(2);

/// The load of a slice that does not count: caches and connections are warm after it.
const WARM_UP: Duration = Duration::from_secs(1);

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
    /// Whether handshakes of TLS resume an earlier session.
    pub(crate) resumes_tls: bool,
}

/// The result of one load.
pub(crate) struct Run {
    pub(crate) counts: Counts,
    pub(crate) per_second: f64,
    /// The server's processor time for one cycle, in microseconds.
    pub(crate) cpu_micros: f64,
    /// The processor time of the load itself for one cycle, in microseconds.
    pub(crate) load_micros: f64,
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
            let mut runs: [Option<Run>; N] = [const { None }; N];
            for turn in 0..N {
                // Each is the first one in its turn.
                let index = (turn + round) % N;
                let (process, load) = loads[index];
                let duration = if round == 0 { WARM_UP } else { load.duration };
                runs[index] = Some(self.load(process, &processes, Load { duration, ..load })?);
            }
            if round > 0 {
                rounds.push(runs.map(|run| run.expect("each process had its turn")));
            }
        }
        Ok(rounds)
    }

    /// Puts a load on one process, while only these processes should run.
    pub(crate) fn load(&self, process: &Process, all: &[&Process], load: Load) -> Result<Run> {
        let Load { users, profile, duration, resumes_tls } = load;
        let cycles = CycleLoad {
            url: process.url.clone(),
            root_certificates: process.root_certificates.clone(),
            resumes_tls,
            users,
            profile,
            max_concurrent: MAX_CONCURRENT,
            duration,
            threads: 1,
        };
        let stats = Arc::<LoadStats>::default();
        let (cpu, own, watch) = (process.cpu()?, own_cpu()?, Watch::begin(all)?);
        smol::block_on(cycles.run(&stats));
        let (cpu, own, is_disturbed) = (process.cpu()? - cpu, own_cpu()? - own, watch.is_disturbed()?);
        let counts = stats.counts();
        ensure!(counts.failures.is_empty() && counts.cycles > 0, "cycles failed: {:?}", counts.failures);
        ensure!(counts.not_begun == 0, "{} cycles were not begun", counts.not_begun);
        let per_second = counts.cycles as f64 / duration.as_secs_f64();
        let of_one = |cpu: Duration| cpu.as_secs_f64() * 1e6 / counts.cycles as f64;
        let (cpu_micros, load_micros) = (of_one(cpu), of_one(own));
        Ok(Run { counts, per_second, cpu_micros, load_micros, is_disturbed })
    }
}

impl Load {
    /// A load for one slice.
    pub(crate) fn new(users: u32, profile: LoadProfile) -> Self {
        Self { users: Users(users), profile, duration: SLICE, resumes_tls: false }
    }
}

impl Run {
    /// The time from AUTHENTICATE, or from when it was due, to the reply, in milliseconds.
    pub(crate) fn sign_in_millis(&self, quantile: f64) -> f64 {
        self.counts.sign_in.value_at_quantile(quantile) as f64 / 1e6
    }
}

fn own_cpu() -> Result<Duration> {
    processor_time::of_process(std::process::id()).context("no processor time in proc(5)")
}

/// The number of disturbed rounds, and of all rounds.
pub(crate) fn disturbed<const N: usize>(rounds: &[Round<N>]) -> (usize, usize) {
    (rounds.iter().filter(|round| round.iter().any(|run| run.is_disturbed)).count(), rounds.len())
}

/// The median of a figure; zero if there are no items.
pub(crate) fn median<T>(items: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    quantile(items, 0.5, figure)
}

/// The lower and the upper quartile of a figure.
pub(crate) fn quartiles<T>(items: &[T], figure: impl Fn(&T) -> f64) -> [f64; 2] {
    [quantile(items, 0.25, &figure), quantile(items, 0.75, &figure)]
}

fn quantile<T>(items: &[T], quantile: f64, figure: impl Fn(&T) -> f64) -> f64 {
    let mut figures: Vec<f64> = items.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is an index")]
    let index = (figures.len().saturating_sub(1) as f64 * quantile).round() as usize;
    figures.get(index).copied().unwrap_or_default()
}

/// How many sessions this process and a server can have open.
pub(crate) fn sessions() -> u32 {
    const MAX: u64 = 15_000;
    u32::try_from(raise_limit().saturating_sub(500).min(MAX)).expect("it is below 15,001")
}
