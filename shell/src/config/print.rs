//! A configuration as a file.

use std::fmt::Write as _;

use super::Config;
use super::key::{Applies, Key};
use super::rule::Shape;
use super::sources::{Loaded, Setting};

/// How wide a line of help is.
const WIDTH: usize = 100;

const INTRODUCTION: &str = "\
The configuration of the server, every key at its default. Take the # before a key away and set it. An environment \
variable counts more than this file, and a flag more than both. A relative path is looked for where the server is \
started. Times are written as in \"10s\", \"500ms\" or \"2m\".";

/// A file with every key at what counts, and where that came from.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut group = "";
    for Setting { key, texts, origin } in &loaded.settings {
        if group != key.group {
            group = key.group;
            let _infallible = writeln!(text, "{}# {group}", if text.is_empty() { "" } else { "\n" });
        }
        // A name that would end the comment.
        let origin = origin.to_string().replace(char::is_control, "?");
        let _infallible = writeln!(text, "{} = {}  # {origin}", key.name, value(key, texts));
    }
    text
}

/// A file with every key at its default, commented out, and what there is to know of it.
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
            Applies::AtOnce => "SIGHUP re-reads it",
            Applies::AfterRestart => "A change needs a restart",
        };
        comment(&mut text, &format!("Also {} and --{}. {applies}.", key.variable, key.flag));
        let _infallible = writeln!(text, "# {} = {}", key.name, value(key, &key.default_texts()));
    }
    text
}

fn value(key: &Key, texts: &[String]) -> String {
    let values: Vec<_> = texts.iter().map(|text| scalar(key, text)).collect();
    if key.shape == Shape::List { format!("[{}]", values.join(", ")) } else { values.concat() }
}

/// A value that is read back as this text.
fn scalar(key: &Key, text: &str) -> String {
    let is_number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    let is_switch = key.shape == Shape::Switch && matches!(text, "true" | "false");
    if is_number || is_switch { text.into() } else { string(text) }
}

/// As JSON writes a string, but for the one character that must be escaped in TOML only.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// Adds words as lines of a comment.
fn comment(text: &mut String, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
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
