//! How many system calls a cycle costs a server, by strace(1).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Process;

/// The calls by name, most frequent first.
pub(crate) struct SystemCalls(Vec<(String, u64)>);

impl SystemCalls {
    /// Counts the calls of all threads while `work` runs, which this makes several times slower. `None` if there is no
    /// strace, or it may not attach.
    pub(crate) fn count<T>(
        process: &Process,
        directory: &Path,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<Option<(Self, T)>> {
        let summary = directory.join("strace");
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-o"]).arg(&summary).args(["-p", &process.id().to_string()]);
        let Ok(mut strace) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() else {
            return Ok(None);
        };
        let mut lines = BufReader::new(strace.stderr.take().context("a pipe was asked for")?).lines();
        // It says so once it has attached to all threads that there are.
        let is_attached = lines.next().transpose()?.is_some_and(|line| line.contains(" attached"));
        if !is_attached {
            let _status = strace.wait()?;
            return Ok(None);
        }
        let worked = work();
        let id = i32::try_from(strace.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
        kill_process(id, Signal::INT)?;
        let _status = strace.wait()?;
        Ok(Some((Self::parse(&fs::read_to_string(summary)?), worked?)))
    }

    /// Reads the table of `strace -c`: `% time, seconds, usecs/call, calls, errors if any, syscall`.
    fn parse(summary: &str) -> Self {
        let mut calls = BTreeMap::new();
        for line in summary.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [share, _, _, count, .., name] = fields[..]
                && share.parse::<f64>().is_ok()
                && name != "total"
                && let Ok(count) = count.parse::<u64>()
            {
                *calls.entry(name.to_owned()).or_insert(0) += count;
            }
        }
        let mut calls: Vec<_> = calls.into_iter().collect();
        calls.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        Self(calls)
    }

    /// All calls, for each of `cycles` cycles.
    pub(crate) fn per_cycle(&self, cycles: u64) -> f64 {
        self.0.iter().map(|&(_, count)| count).sum::<u64>() as f64 / cycles as f64
    }

    /// The frequent calls, for each of `cycles` cycles.
    pub(crate) fn text(&self, cycles: u64) -> String {
        let calls = self.0.iter().map(|(name, count)| (name, *count as f64 / cycles as f64));
        let texts: Vec<_> =
            calls.filter(|&(_, count)| count >= 0.05).map(|(name, count)| format!("{name} {count:.2}")).collect();
        texts.join(", ")
    }
}
