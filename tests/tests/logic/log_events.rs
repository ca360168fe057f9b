//! The table of the log's events: its page in the documentation, and that every event is logged, and no line beside them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use shell::runtime::events::{EVENTS, Event, Rate};

const BEGIN: &str = "<!-- events -->\n";
const END: &str = "<!-- end of events -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn row(event: &Event) -> String {
    let rate = match event.rate {
        Rate::Each => "each",
        Rate::OnePerSecond => "a second",
    };
    let fields: Vec<_> = event.fields.iter().map(|field| format!("`{field}`")).collect();
    let (name, level, target) = (event.name, event.level.as_str().to_lowercase(), event.target);
    let what = format!("**{}**.{}", event.message.replace('|', "\\|"), event.description.replace('|', "\\|"));
    format!("| `{name}` | {level} | {rate} | {} | {what} | {target} |\n", fields.join(" "))
}

#[test]
fn page_shows_the_table_of_events() {
    let path = root().join("docs/log.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let mut table = String::from("\n| event | level | lines | fields | | target |\n|---|---|---|---|---|---|\n");
    EVENTS.iter().for_each(|event| table.push_str(&row(event)));
    let expected = format!("{before}{BEGIN}{table}\n{END}{after}");
    if env::var_os("UPDATE_PAGES").is_some() {
        fs::write(path, expected).unwrap();
    } else {
        assert_eq!(page, expected, "run UPDATE_PAGES=1 cargo test --test logic log_events");
    }
}

/// The code of every file of the shell, without comments, and without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, sources: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let mut kept = String::new();
                for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    let _infallible = writeln!(kept, "{line}");
                }
                sources.push((path, kept));
            }
        }
    }
    let mut sources = Vec::new();
    collect(&root().join("shell/src"), &mut sources);
    sources
}

#[test]
fn every_event_is_logged_and_nothing_else() {
    let sources = sources();
    for event in EVENTS {
        let calls = match event.rate {
            Rate::Each => [format!("log_event!({} {{", event.name), format!("log_event!({} {{", event.name)],
            Rate::OnePerSecond => [format!("{} {{", event.name), format!(", {} {{", event.name)],
        };
        let is_logged = sources.iter().any(|(_, code)| calls.iter().any(|call| code.contains(call)));
        assert!(is_logged, "{} is never logged", event.name);
    }
    for (path, code) in sources.iter().filter(|(path, _)| !path.ends_with("runtime/events/log_macros.rs")) {
        for name in ["error", "warn", "info", "debug", "trace", "event"] {
            assert!(
                !code.contains(&format!("tracing::{name}!")),
                "{} logs a line that is not in the table of events",
                path.display()
            );
        }
    }
}

#[test]
fn names_are_those_of_the_field() {
    let known =
        ["user", "session", "client_address", "client", "close_code", "reason", "error", "node", "path", "directory"];
    let strange = ["why", "what", "address", "peer", "client_ip", "ip", "user_id", "session_id", "code", "file"];
    for event in EVENTS {
        for field in event.fields {
            assert!(!strange.contains(field), "{}: {field} should be one of {known:?}", event.name);
        }
        let mut fields = event.fields.to_vec();
        fields.sort_unstable();
        fields.dedup();
        assert_eq!(fields.len(), event.fields.len(), "{} has a field twice", event.name);
    }
    let mut names: Vec<_> = EVENTS.iter().map(|event| event.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), EVENTS.len());
}
