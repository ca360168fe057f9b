//! The limit on open files. Each session needs one.

use std::{env, fmt, fs, process};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of this process, and of the processes it starts, to the hard limit. Returns the new limit.
pub fn raise_limit() -> u64 {
    OpenFileLimit::raise().now
}

/// The limit of open files of this process, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFileLimit {
    /// The soft limit with which the process was started.
    pub before: u64,
    /// The soft limit now. It is the one in force.
    pub now: u64,
    /// The hard limit. A process without privileges cannot raise it.
    pub hard: u64,
    /// Why the soft limit could not be raised to the hard one.
    pub failure: Option<String>,
    /// Who can raise the hard limit.
    pub starter: Starter,
}

/// How the process was started, as far as it matters for who can raise the hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// By systemd, as the process of a unit.
    SystemdUnit,
    /// By a process that may raise hard limits.
    Privileged,
    /// By a process that may not. A container's root is usually one.
    Ordinary,
}

impl OpenFileLimit {
    /// Raises the soft limit of this process, and of the processes it starts, to the hard limit.
    #[must_use]
    pub fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        let now = getrlimit(Resource::Nofile);
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        Self {
            before: number(limit.current),
            now: number(now.current),
            hard: number(now.maximum),
            failure: raised.err().map(|error| error.to_string()),
            starter: Starter::detect(),
        }
    }

    /// How to get a limit of `needed` files, for whoever started this process.
    #[must_use]
    pub fn advice(&self, needed: u64) -> String {
        if self.now < self.hard.min(needed) {
            return format!("start it after ulimit -n {}", needed.min(self.hard));
        }
        match self.starter {
            Starter::SystemdUnit => {
                format!("set LimitNOFILE={needed} in the [Service] section of its systemd unit, and restart it")
            }
            Starter::Privileged => format!("start it after ulimit -n {needed}"),
            Starter::Ordinary => format!(
                "only root can raise the hard limit (ulimit -Hn shows it): LimitNOFILE={needed} in a systemd unit, nofile in \
                 /etc/security/limits.conf for logins, --ulimit nofile={needed} for a container"
            ),
        }
    }
}

/// What happened to the limit, for the log.
impl fmt::Display for OpenFileLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, now, hard, failure, starter: _ } = self;
        match failure {
            Some(why) if now < hard => write!(f, "the limit of open files could not be raised: {why}"),
            Some(_) | None if now > before => {
                write!(f, "raised the limit of open files from {before} to its hard limit")
            }
            Some(_) | None => f.write_str("the limit of open files is its hard limit, and was before"),
        }
    }
}

impl Starter {
    fn detect() -> Self {
        // systemd sets it for the process of a unit. What that process starts inherits it, so the number must be ours.
        let unit_process = env::var("SYSTEMD_EXEC_PID").ok();
        let status = fs::read_to_string("/proc/self/status").ok();
        Self::from_facts(
            unit_process.as_deref(),
            process::id(),
            status.as_deref(),
            rustix::process::geteuid().is_root(),
        )
    }

    fn from_facts(unit_process: Option<&str>, own: u32, status: Option<&str>, is_root: bool) -> Self {
        if unit_process.and_then(|pid| pid.parse().ok()) == Some(own) {
            Self::SystemdUnit
        } else if status.and_then(may_raise_hard_limits).unwrap_or(is_root) {
            Self::Privileged
        } else {
            Self::Ordinary
        }
    }
}

/// Whether the effective capabilities in `/proc/self/status` include `CAP_SYS_RESOURCE`. `None` if it does not show them.
fn may_raise_hard_limits(status: &str) -> Option<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some((set >> CAP_SYS_RESOURCE) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(before: u64, now: u64, hard: u64, starter: Starter) -> OpenFileLimit {
        let failure = (now < hard).then(|| "Invalid argument".to_owned());
        OpenFileLimit { before, now, hard, failure, starter }
    }

    #[test]
    fn limit_says_what_happened_to_it() {
        for (before, now, hard, message) in [
            (1024, 4096, 4096, "raised the limit of open files from 1024 to its hard limit"),
            (4096, 4096, 4096, "the limit of open files is its hard limit, and was before"),
            (1024, 1024, 4096, "the limit of open files could not be raised: Invalid argument"),
        ] {
            assert_eq!(limit(before, now, hard, Starter::Ordinary).to_string(), message);
        }
    }

    #[test]
    fn advice_fits_who_can_follow_it() {
        let at_hard = |starter| limit(1024, 4096, 4096, starter).advice(10_128);
        assert_eq!(at_hard(Starter::Privileged), "start it after ulimit -n 10128");
        assert!(at_hard(Starter::SystemdUnit).starts_with("set LimitNOFILE=10128 in the [Service] section"));
        let ordinary = at_hard(Starter::Ordinary);
        assert!(ordinary.starts_with("only root can raise the hard limit"), "{ordinary}");
        assert!(!ordinary.contains("ulimit -n "), "it could not be followed: {ordinary}");
        // Below the hard limit everybody can.
        assert_eq!(limit(1024, 1024, 4096, Starter::Ordinary).advice(10_128), "start it after ulimit -n 4096");
        assert_eq!(limit(1024, 1024, 4096, Starter::Ordinary).advice(2000), "start it after ulimit -n 2000");
    }

    #[test]
    fn starter_is_known_by_unit_and_capabilities() {
        let (all, container) = ("Name:\tx\nCapEff:\t000001ffffffffff\n", "CapEff:\t00000000a80425fb\n");
        for (unit_process, status, is_root, starter) in [
            (Some("7"), None, false, Starter::SystemdUnit),
            (Some("8"), None, false, Starter::Ordinary),
            (Some("x"), Some(all), true, Starter::Privileged),
            (None, Some(all), false, Starter::Privileged),
            (None, Some(container), true, Starter::Ordinary),
            (None, Some("CapEff:\tx"), true, Starter::Privileged),
            (None, None, true, Starter::Privileged),
            (None, None, false, Starter::Ordinary),
        ] {
            assert_eq!(Starter::from_facts(unit_process, 7, status, is_root), starter, "{unit_process:?} {status:?}");
        }
    }
}
