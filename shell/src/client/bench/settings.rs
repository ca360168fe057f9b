//! The options of `client bench` and their bounds.

use std::time::Duration;

use clap::Args;

use super::load::{LoadProfile, Users};
use crate::client::{RootCertificates, Url};
use crate::runtime::duration::duration_within;
use crate::runtime::threads::one_per_core;

/// The options of a run. clap has checked every value.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The server, a ws:// or wss:// URL
    #[arg(long, env = "SESSIONS_URL", default_value = "ws://localhost:3000")]
    pub url: Url,

    /// For wss://, a PEM file with the certificates to trust instead of the system's
    #[arg(long, value_name = "FILE", env = "SESSIONS_CA", value_parser = |file: &str| RootCertificates::read(file))]
    pub ca: Option<RootCertificates>,

    /// Open loop: start this many cycles per second even if the server falls behind, 1 to 100000. Latency counts from
    /// the scheduled time, so a stalled server shows
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = parse_whole_number::<u32, 1, 100_000>, allow_negative_numbers = true)]
    pub rate: u32,

    /// Closed loop: run this many cycles at once, 1 to 10000. Each starts when the one before it has ended. This is as
    /// fast as the server can go, but it sends nothing while the server stalls
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = parse_whole_number::<u16, 1, 10_000>, allow_negative_numbers = true)]
    pub concurrency: Option<u16>,

    /// How many users sign in, 1 to 100000000: user-00000000 and on. Each cycle picks one at random [default: 10000;
    /// with --hold a third of the sessions]
    #[arg(long, value_name = "N", value_parser = parse_whole_number::<u32, 1, 100_000_000>, allow_negative_numbers = true)]
    pub users: Option<u32>,

    /// How long to start cycles, or to hold sessions once all are open, 100ms to 1day
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Open this many sessions instead, spread evenly over the users, and hold them, 1 to 60000. --rate or
    /// --concurrency sets how fast they are opened
    #[arg(long, value_name = "N", value_parser = parse_whole_number::<u32, 1, 60_000>, allow_negative_numbers = true)]
    pub hold: Option<u32>,

    /// Print the report as one object of JSON
    #[arg(long)]
    pub json: bool,

    /// How many threads create the load, 1 to 256 [default: 1; with --hold one per core]
    #[arg(long, value_name = "N", value_parser = parse_whole_number::<u16, 1, 256>, allow_negative_numbers = true)]
    pub threads: Option<u16>,
}

/// The end of its help.
pub const AFTER_HELP: &str = "\
A cycle connects, waits for HELLO, authenticates, sends BYE and waits for the close. A cycle without an answer 10 seconds \
after the last one was started counts as failed. Progress goes to standard error, the report to standard output.\n
After Ctrl-C or SIGTERM no more cycles are started, and held sessions send BYE. The report follows once all have ended. \
After the second signal it follows at once.\n
Exit codes:
  0  no cycle or session failed; a refusal at the limit is no failure
  1  the report cannot be written, signals cannot be caught, or open files are too few
  2  wrong usage
  4  a cycle or session failed or was not started, or none succeeded; or a second Ctrl-C";

impl Settings {
    /// The authorities trusted for `wss://`.
    #[must_use]
    pub fn root_certificates(&self) -> RootCertificates {
        self.ca.clone().unwrap_or_default()
    }

    /// How fast cycles are started, or sessions opened.
    #[must_use]
    pub fn profile(&self) -> LoadProfile {
        self.concurrency.map_or(LoadProfile::Rate(self.rate.into()), LoadProfile::Concurrency)
    }

    /// The threads. One thread has enough cycles under way for most servers, and takes no more of the machine than it must.
    #[must_use]
    pub fn threads(&self) -> u16 {
        self.threads.unwrap_or_else(|| if self.hold.is_some() { one_per_core() } else { 1 })
    }

    /// The users: 10,000, or a third of the held sessions, unless `--users` says otherwise.
    #[must_use]
    pub fn users(&self) -> Users {
        let usual = self.hold.map_or(10_000, |sessions| sessions.div_ceil(3));
        Users(self.users.unwrap_or(usual))
    }
}

fn parse_whole_number<T: TryFrom<u32>, const LEAST: u32, const MOST: u32>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (LEAST..=MOST).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("expected a whole number, {LEAST} to {MOST}"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    duration_within(text, Duration::from_millis(100), DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let arguments = ["bench"].iter().chain(arguments);
        Cli::try_parse_from(arguments).map(|cli| cli.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn default_is_an_open_loop_of_ten_seconds() {
        let settings = parse(&[]).unwrap();
        assert_eq!((settings.profile(), settings.users()), (LoadProfile::Rate(1000.0), Users(10_000)));
        assert_eq!((settings.duration, settings.hold, settings.json), (Duration::from_secs(10), None, false));
        let closed = parse(&["--concurrency", "64", "--users", "7"]).unwrap();
        assert_eq!((closed.profile(), closed.users()), (LoadProfile::Concurrency(64), Users(7)));
    }

    #[test]
    fn hold_defaults_to_three_sessions_per_user() {
        assert_eq!(parse(&["--hold", "10"]).unwrap().users(), Users(4));
        assert_eq!(parse(&["--hold", "10", "--users", "1"]).unwrap().users(), Users(1));
    }

    #[test]
    fn bad_values_name_their_bounds() {
        for (arguments, expected) in [
            (&["--rate", "0"][..], "expected a whole number, 1 to 100000"),
            (&["--rate", "100001"], "expected a whole number, 1 to 100000"),
            (&["--rate", "1e3"], "expected a whole number"),
            (&["--rate", "-1"], "expected a whole number"),
            (&["--concurrency", "10001"], "1 to 10000"),
            (&["--concurrency", "0"], "1 to 10000"),
            (&["--users", "0"], "1 to 100000000"),
            (&["--hold", "60001"], "1 to 60000"),
            (&["--hold", "99999999999999999999"], "1 to 60000"),
            (&["--threads", "257"], "1 to 256"),
            (&["--duration", "10"], "write it as in 10s"),
            (&["--duration", "99ms"], "it must be 100ms to 1day"),
            (&["--duration", "25h"], "it must be 100ms to 1day"),
            (&["--url", "http://localhost"], "only ws and wss are supported"),
            (&["--rate", "10", "--concurrency", "10"], "cannot be used with"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
