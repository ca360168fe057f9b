//! `server status`: how the server and its store are doing.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use super::admin_access;
use super::user_text::count;
use crate::admin::{
    AdminService, ChangedSetting, MapUsage, ServerStatus, SessionTotals, StatusReport, UserTotals, socket,
};
use crate::config::Config;
use crate::runtime::rfc3339::format_rfc3339;

/// The exit code if no server runs.
pub(crate) const NO_SERVER: u8 = 7;

/// The arguments of `server status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the status. Returns the exit code.
pub(crate) fn run(
    arguments: &StatusArguments,
    config: &Config,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let server = async || socket::status(&config.data).await;
    let store = async |service: &AdminService| Ok(service.status().await);
    let report = match smol::block_on(admin_access::ask(config, server, store)) {
        Ok(report) => report,
        Err(error) => return writeln!(err, "error: {error}").map(|()| 1),
    };
    let code = if report.server.is_some() { 0 } else { NO_SERVER };
    if arguments.json {
        let json = serde_json::to_string(&report).expect("strings and numbers always serialise");
        writeln!(out, "{json}").map(|()| code)
    } else {
        write!(out, "{}", describe(&report)).map(|()| code)
    }
}

/// One line for each subject, and one for each thing that is wrong.
fn describe(report: &StatusReport) -> String {
    let StatusReport { server, data, sessions, users, store } = report;
    let mut lines = Vec::new();
    match server {
        Some(server) => lines.extend(describe_server(server)),
        None => lines.push(("server", "does not run: what follows is what its store shows".into())),
    }
    lines.push(("data", data.clone().unwrap_or_else(|| "in memory only".into())));
    lines.push(("sessions", sessions.as_ref().map_or_else(|| UNKNOWN.into(), describe_sessions)));
    lines.push(("users", describe_users(users)));
    if server.is_some() {
        lines.push((
            "store",
            match &store.refusal {
                None => "admits sessions".into(),
                Some(refusal) => format!("admits no session; a client is told: {refusal}"),
            },
        ));
    }
    lines.extend(store.problems.iter().map(|problem| ("problem", problem.clone())));
    if !store.shared {
        for (name, usage) in [("live map", &store.live), ("users map", &store.users)] {
            lines.push((name, usage.as_ref().map_or_else(|| UNKNOWN.into(), describe_map)));
        }
    }
    if let Some(server) = server {
        lines.extend(describe_configuration(server));
    }
    lines.iter().fold(String::new(), |text, (name, value)| text + &format!("{name:<WIDTH$}{}\n", indented(value)))
}

/// Where the values begin.
const WIDTH: usize = 15;

const UNKNOWN: &str = "cannot be read now";

/// Puts further lines below the first.
fn indented(value: &str) -> String {
    value.replace('\n', &format!("\n{:WIDTH$}", ""))
}

fn describe_server(server: &ServerStatus) -> Vec<(&'static str, String)> {
    let ServerStatus { version, node, process, started_at, uptime_ms, listen, connections, descriptors, .. } = server;
    // Whole seconds are enough.
    let uptime = humantime::format_duration(Duration::from_secs(uptime_ms / 1000));
    let bound = |max: Option<usize>| max.map_or_else(|| "unlimited".into(), |max| format!("at most {max}"));
    let used = descriptors.used.map_or_else(|| "unknown".into(), |used| format!("{used} used"));
    let max = descriptors.max.map_or_else(|| "unlimited".into(), |max| format!("at most {max}"));
    vec![
        (
            "server",
            format!("runs, version {version}, process {process}, since {} ({uptime})", format_rfc3339(*started_at)),
        ),
        ("node", node.clone()),
        ("listens on", listen.join(" and ")),
        ("connections", format!("{}, {}", connections.open, bound(connections.max))),
        (
            "",
            format!(
                "{} of them not authenticated, {}",
                connections.unauthenticated,
                bound(connections.max_unauthenticated)
            ),
        ),
        ("descriptors", format!("{used}, {max}")),
    ]
}

fn describe_sessions(totals: &SessionTotals) -> String {
    let SessionTotals { live, lingering, users, complete } = totals;
    let least = if *complete { "" } else { "at least " };
    format!("{least}{live} live, {lingering} lost and kept; of {least}{}", count(users, "user"))
}

fn describe_users(UserTotals { known, max_known, with_overrides }: &UserTotals) -> String {
    let Some(known) = known else { return UNKNOWN.into() };
    let max = max_known.map(|max| format!(", at most {max}")).unwrap_or_default();
    let with_overrides = with_overrides.map(|number| format!("; {number} with overrides")).unwrap_or_default();
    format!("{known} known{max}{with_overrides}")
}

fn describe_map(MapUsage { max_bytes, used_bytes, file_bytes }: &MapUsage) -> String {
    let percent = used_bytes.saturating_mul(100) / max_bytes.max(&1);
    let [used, max, file] = [used_bytes, max_bytes, file_bytes].map(|&bytes| format_bytes(bytes));
    format!("{used} of {max} used ({percent}%), the file has {file}")
}

/// In the largest unit that gives at least ten, rounded up.
fn format_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= 10 * size);
    unit.map_or_else(|| format!("{bytes} bytes"), |(size, name)| format!("{} {name}", bytes.div_ceil(size)))
}

fn describe_configuration(server: &ServerStatus) -> Vec<(&'static str, String)> {
    let configuration = &server.configuration;
    let line = |name, ChangedSetting { key, in_force, now }: &ChangedSetting| {
        (name, format!("{key} is {in_force:?} in force, and {now:?} in the configuration"))
    };
    let restart = configuration.needs_restart.iter().map(|setting| line("needs restart", setting));
    let reload = configuration.needs_reload.iter().map(|setting| line("needs reload", setting));
    let error = configuration.error.iter().map(|error| {
        ("configuration", format!("is invalid: a reload would change nothing, and a restart would fail\n{error}"))
    });
    restart.chain(reload).chain(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_two_digits_at_least() {
        let texts = [0, 4096, 10 << 10, (10 << 20) - 1, 10 << 20, (10 << 20) + 1, 64 << 30].map(format_bytes);
        assert_eq!(texts, ["0 bytes", "4096 bytes", "10 KiB", "10240 KiB", "10 MiB", "11 MiB", "64 GiB"]);
    }

    #[test]
    fn sessions_that_are_not_all_counted_are_at_least_so_many() {
        let totals = SessionTotals { live: 5, lingering: 0, users: 1, complete: false };
        assert_eq!(describe_sessions(&totals), "at least 5 live, 0 lost and kept; of at least 1 user");
    }
}
