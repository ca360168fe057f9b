//! Prints a configuration as a file.

use std::fmt::Write as _;

use super::Config;
use super::key::{Key, ReloadMode};
use super::layer::KeyValue;
use super::loader::Loaded;
use super::value::Shape;

/// Columns of a line of help.
const WIDTH: usize = 100;

const INTRODUCTION: &str = "\
The configuration of the server, with every key at its default. Remove the # before a key to set it. An environment \
variable overrides this file, and a flag overrides both. A relative path starts at the directory in which the server is \
started. Write times as in \"10s\", \"500ms\" or \"2m\".";

/// A file with every key at its value in force, and the source of that value.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut group = "";
    for KeyValue { key, texts, source } in &loaded.settings {
        if group != key.group {
            group = key.group;
            let _infallible = writeln!(text, "{}# {group}", if text.is_empty() { "" } else { "\n" });
        }
        // A line break in the name would end the comment.
        let source = source.to_string().replace(char::is_control, "?");
        let _infallible = writeln!(text, "{} = {}  # {source}", key.name, value(key, texts));
    }
    text
}

/// A file with every key at its default, commented out, and with its description.
#[must_use]
pub fn defaults() -> String {
    let mut text = String::new();
    comment(&mut text, INTRODUCTION);
    let mut group = "";
    for key in Config::keys() {
        if group != key.group {
            group = key.group;
            let _infallible = write!(text, "\n\n# {group}\n# {}\n", "-".repeat(group.len()));
        }
        text.push('\n');
        comment(&mut text, &format!("{}.", key.help));
        if !key.choices.is_empty() {
            let names: Vec<_> = key.choices.iter().map(clap::builder::PossibleValue::get_name).collect();
            comment(&mut text, &format!("One of {}.", names.join(", ")));
        }
        let applies = match key.applies {
            ReloadMode::AtOnce => "SIGHUP re-reads it",
            ReloadMode::AfterRestart => "A change needs a restart",
        };
        comment(&mut text, &format!("Also {} and --{}. {applies}.", key.variable, key.flag));
        let _infallible = writeln!(text, "# {} = {}", key.name, value(key, &key.default_texts()));
    }
    text
}

fn value(key: &Key, texts: &[String]) -> String {
    let values: Vec<_> = texts.iter().map(|text| scalar(key, &key.shown(text))).collect();
    if key.shape == Shape::List { format!("[{}]", values.join(", ")) } else { values.concat() }
}

/// A TOML value that reads back as this text.
fn scalar(key: &Key, text: &str) -> String {
    let is_number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    let is_switch = key.shape == Shape::Switch && matches!(text, "true" | "false");
    if is_number || is_switch { text.into() } else { string(text) }
}

/// A string as JSON writes it. TOML must escape one more character.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// Appends words as lines of a comment.
fn comment(text: &mut String, message: &str) {
    let mut column = 0;
    for word in message.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            text.push('\n');
            column = 0;
        }
        if column == 0 {
            text.push('#');
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::sample::Sample;
    use crate::config::{ConfigLoader, ConfigSource, Flags};

    /// The configuration in a file with this text.
    fn load(text: &str) -> Loaded {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.toml");
        fs::write(&path, text).unwrap();
        ConfigLoader::from_file(path).load().unwrap()
    }

    #[test]
    fn printed_defaults_load_as_the_defaults() {
        let (text, default) = (defaults(), load(""));
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
        let is_key = |line: &str| Config::keys().iter().any(|key| line.starts_with(&format!("# {} = ", key.name)));
        let lines = text.lines().map(|line| if is_key(line) { &line[2..] } else { line });
        let set = load(&lines.collect::<Vec<_>>().join("\n"));
        assert_eq!(set.config, default.config);
        for (set, default) in set.settings.iter().zip(&default.settings) {
            assert_eq!(set.texts, default.texts);
            assert!(matches!(set.source, ConfigSource::Line { .. }), "{:?} is in the file", set.key);
        }
    }

    #[test]
    fn printed_defaults_describe_every_key() {
        let text = defaults();
        for message in [
            "\n# Limits\n# ------\n\n# Maximum sessions per user, 0 to 1024; `unlimited` is 1024. A token or `server limit` can override\n\
             # it. 0 admits only users with such an override.\n\
             # Also SESSIONS_LIMIT and --limit. SIGHUP re-reads it.\n# limit = 3\n",
            "\n# One of lmdb, memory, redis.\n# Also SESSIONS_STORE and --store. A change needs a restart.\n# store = \"lmdb\"\n",
            "\n# listen = [\"localhost:3000\"]\n",
        ] {
            assert!(text.contains(message), "{message}\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("can override\n"), "a line is full before it is broken");
    }

    #[test]
    fn printed_configuration_names_sources_and_loads_again() {
        let limit = Config::keys().iter().find(|key| key.name == "limit").unwrap();
        let given =
            vec![KeyValue { key: limit, texts: vec!["5".into()], source: ConfigSource::Flag("--limit".into()) }];
        let variable = |name: &str, value: &str| (name.into(), value.into());
        let environment = [
            variable("SESSIONS_DATA", "a \"b\" \\ \t\u{7f}\u{e9}"),
            variable("SESSIONS_LISTEN", "127.0.0.1:1,[::1]:2"),
        ];
        let loaded = ConfigLoader::new(Flags { file: None, given }, environment).load().unwrap();
        let text = effective(&loaded);
        for line in [
            "# Limits",
            "limit = 5  # --limit",
            "listen = [\"127.0.0.1:1\", \"[::1]:2\"]  # SESSIONS_LISTEN",
            "auth_timeout = \"10s\"  # default",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        let again = load(&text);
        assert_eq!(again.config, loaded.config);
        assert!(effective(&load("\nlimit = 6")).contains("sessions.toml:2\n"));
    }

    #[test]
    fn line_break_in_a_path_stays_in_its_comment() {
        let mut loaded = load("");
        loaded.settings[0].source = ConfigSource::Line { path: "a\nlimit = 9".into(), line: 1, column: 1 };
        assert_eq!(load(&effective(&loaded)).config.limit.slots(), 3);
    }

    #[test]
    fn value_is_written_with_its_toml_type() {
        for (name, text, written) in [
            ("most", "7", "7"),
            ("most", "007", "\"007\""),
            ("most", "unlimited", "\"unlimited\""),
            ("may_be_open", "true", "true"),
            ("kind", "true", "\"true\""),
            ("certificate", "", "\"\""),
            ("ports", "80,443", "[80, 443]"),
            ("origins", "", "[]"),
        ] {
            let key = Sample::keys().iter().find(|key| key.name == name).unwrap();
            assert_eq!(value(key, &key.split(text)), written, "{name} {text}");
        }
    }
}
