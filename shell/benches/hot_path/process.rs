//! A server process, and its processor time and memory as the kernel counts them (proc(5)).

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;
use shell::client::{RootCertificates, Url};
use shell::net::tls::CertificateFiles;
use tests::processor_time::{self, parse_stat};
use tests::test_ca::TestCa;
use tests::test_process::{SpawnedProcess, TestProcess, send_signal, without_connection_limits};

/// A listening server. Killed when dropped.
pub(crate) struct Process {
    server: TestProcess,
    pub(crate) url: Url,
    /// The authorities that its certificate is trusted for.
    pub(crate) root_certificates: RootCertificates,
}

/// A certificate for servers on this machine, in files.
pub(crate) struct Certificate {
    files: CertificateFiles,
    root_certificates: RootCertificates,
}

impl Certificate {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let ca = TestCa::new(directory);
        Ok(Self { files: ca.certify("server", &["127.0.0.1"]), root_certificates: RootCertificates::read(&ca.ca)? })
    }

    /// The options with which the floor and the server use it.
    pub(crate) fn options(&self) -> [String; 4] {
        let CertificateFiles { certificate, key } = &self.files;
        ["--tls-cert".into(), certificate.display().to_string(), "--tls-key".into(), key.display().to_string()]
    }

    /// How clients reach a process with these options.
    pub(crate) fn speak_tls(&self, process: Process) -> Result<Process> {
        let url = format!("wss://{}/", process.server.address).parse()?;
        Ok(Process { url, root_certificates: self.root_certificates.clone(), ..process })
    }
}

impl Process {
    /// The floor server, which is this program.
    pub(crate) fn floor(options: &[&str]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("--floor").args(options);
        Self::start(SpawnedProcess::from_command(command))
    }

    /// The real server, with the options of its users except for the port. The whole load comes from one address, so it
    /// has no connection limits.
    pub(crate) fn server(data: &Path, options: &[&str]) -> Result<Self> {
        let log = fs::File::options().create(true).append(true).open(data.with_extension("log"))?;
        let mut command = without_connection_limits(env!("CARGO_BIN_EXE_server"));
        command.args(options).stderr(log);
        Self::start(SpawnedProcess::spawn(command, data))
    }

    fn start(process: SpawnedProcess) -> Result<Self> {
        let server = process.listen().map_err(|failure| anyhow!("the server does not start: {failure:?}"))?;
        let url = server.url().parse()?;
        Ok(Self { server, url, root_certificates: RootCertificates::SYSTEM })
    }

    pub(crate) fn id(&self) -> u32 {
        self.server.id()
    }

    /// The processor time so far, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        processor_time::of_process(self.id()).context("no processor time in proc(5)")
    }

    /// The resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in proc(5)")?;
        Ok(1024.0 * line.trim().trim_end_matches(" kB").parse::<f64>()?)
    }

    /// All addresses that it listens at.
    pub(crate) fn urls(&self) -> Result<Vec<Url>> {
        let words = self.server.announcement.split([' ', ',']).filter(|word| word.starts_with("ws://"));
        Ok(words.map(str::parse).collect::<Result<_, _>>()?)
    }

    /// Sends SIGTERM, and returns how long it took to end.
    pub(crate) fn terminate(mut self) -> Result<Duration> {
        let began = Instant::now();
        send_signal(self.id(), Signal::TERM);
        let status = self.server.wait();
        ensure!(status.success(), "the server ended with {status}");
        Ok(began.elapsed())
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(mut self) {
        self.server.kill();
    }
}

/// Watches the processor time of other processes during a measurement.
pub(crate) struct Watch {
    measured: Vec<u32>,
    before: HashMap<u32, Duration>,
    started_at: Instant,
}

impl Watch {
    /// Starts to watch all processes except these and this one.
    pub(crate) fn begin(measured: &[&Process]) -> Result<Self> {
        let measured = measured.iter().map(|process| process.id()).chain([std::process::id()]).collect();
        Ok(Self { measured, before: all_processes()?, started_at: Instant::now() })
    }

    /// Whether other processes took more than a tenth of a core. Processes that have ended are not counted.
    pub(crate) fn is_disturbed(&self) -> Result<bool> {
        self.is_disturbed_except(&[])
    }

    /// As [`Watch::is_disturbed`], without these processes, which were started since.
    pub(crate) fn is_disturbed_except(&self, started: &[&Process]) -> Result<bool> {
        let is_measured = |id: u32| self.measured.contains(&id) || started.iter().any(|process| process.id() == id);
        let others = all_processes()?.into_iter().filter(|&(id, _)| !is_measured(id));
        let cpu_times = others.map(|(id, cpu)| cpu.saturating_sub(self.before.get(&id).copied().unwrap_or_default()));
        Ok(cpu_times.sum::<Duration>() > self.started_at.elapsed() / 10)
    }
}

/// The processor time of each process so far. Kernel threads are left out.
fn all_processes() -> Result<HashMap<u32, Duration>> {
    const KTHREADD: u32 = 2;

    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // The process may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        if let Some((cpu, parent)) = parse_stat(&stat)
            && parent != KTHREADD
            && id != KTHREADD
        {
            all.insert(id, cpu);
        }
    }
    Ok(all)
}
