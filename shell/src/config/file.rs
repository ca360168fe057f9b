//! The configuration file: TOML (<https://toml.io/en/v1.0.0>), keys without tables.
//!
//! It is read to its end whatever is wrong in it, so that everything that is wrong is told at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigSource, nearest};
use super::key::Key;
use super::layer::{KeyValue, Layer};
use super::value::Shape;

/// What this file sets.
pub(super) fn read(keys: &'static [Key], path: &Path) -> Layer {
    match fs::read_to_string(path) {
        Ok(text) => parse(keys, path, &text),
        Err(error) => {
            let problem = ConfigError::new(ConfigSource::File(path.into()), format!("it cannot be read: {error}"));
            Layer { problems: vec![problem], ..Layer::default() }
        }
    }
}

fn parse(keys: &'static [Key], path: &Path, text: &str) -> Layer {
    let document = Document { path, text };
    let (readable, mut errors) = document.without_lines_that_end_it();
    let (table, other_errors) = DeTable::parse_recoverable(&readable);
    errors.extend(other_errors);
    let table = table.into_inner();
    let mut layer = Layer::default();
    let mut broken = BTreeSet::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        let given = text.get(span.clone()).unwrap_or_default();
        let first = table.keys().find(|key| error.message() == DUPLICATE && key.get_ref() == given);
        if let Some(first) = first {
            let reason = format!("it is given twice, first in line {}", document.line(first.span().start));
            layer.problems.push(ConfigError::for_key(document.origin(span.start), given, reason));
        } else if broken.insert(document.line(span.start)) {
            let reason = format!("this is no TOML: {}", error.message());
            layer.problems.push(ConfigError::new(document.origin(span.start), reason));
        }
    }
    for (name, value) in &table {
        let (start, end) = (name.span().start, name.span().end.max(value.span().end));
        // What was made of lines that are no TOML says nothing.
        if broken.range(document.line(start)..=document.line(end)).next().is_some() {
            continue;
        }
        let (origin, name, value) = (document.origin(start), name.get_ref(), value.get_ref());
        let known = keys.iter().find(|key| key.name == name);
        match known.ok_or_else(|| unknown(keys, name, value)).and_then(|key| Ok((key, texts(key, value)?))) {
            Ok((key, texts)) => layer.settings.push(KeyValue { key, texts, origin }),
            Err(problem) => layer.problems.push(ConfigError { origin, keys: vec![name.to_string()], ..problem }),
        }
    }
    layer
}

/// What the parser says of a key that was there before.
const DUPLICATE: &str = "duplicate key";

/// What it says of a line without `=`, after which it goes on to look for errors, but keeps no more keys.
const NO_VALUE: &str = "key with no value";

struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    fn before(&self, offset: usize) -> &str {
        self.text.get(..offset).unwrap_or(self.text)
    }

    /// The text with spaces for such lines, and what was said of them.
    fn without_lines_that_end_it(&self) -> (String, Vec<toml::de::Error>) {
        let (_, mut errors) = DeTable::parse_recoverable(self.text);
        errors.retain(|error| error.message().starts_with(NO_VALUE));
        let at: BTreeSet<_> = errors.iter().filter_map(|error| Some(self.line(error.span()?.start))).collect();
        let lines = self.text.split('\n').zip(1..);
        let lines = lines.map(|(line, number)| if at.contains(&number) { " ".repeat(line.len()) } else { line.into() });
        (lines.collect::<Vec<_>>().join("\n"), errors)
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.before(offset).matches('\n').count()
    }

    fn origin(&self, offset: usize) -> ConfigSource {
        let line = self.before(offset).rsplit('\n').next().unwrap_or_default();
        ConfigSource::Line { path: self.path.into(), line: self.line(offset), column: 1 + line.chars().count() }
    }
}

fn unknown(keys: &'static [Key], name: &str, value: &DeValue<'_>) -> ConfigError {
    if value.is_table() {
        return problem("there are no tables here, every key stands by itself");
    }
    let spelling = name.to_lowercase().replace('-', "_");
    let suggestion = nearest(&spelling, keys.iter().map(|key| key.name)).map(str::to_owned);
    ConfigError { suggestion, ..problem("there is no such key") }
}

/// The texts that a flag would be given instead of this value.
fn texts(key: &Key, value: &DeValue<'_>) -> Result<Vec<String>, ConfigError> {
    let is_list = key.shape == Shape::List;
    match value {
        DeValue::String(text) => Ok(key.split(text)),
        DeValue::Array(values) if is_list => values.iter().map(|value| scalar(value.get_ref())).collect(),
        DeValue::Array(_) => Err(problem("it takes one value, not an array")),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            scalar(value).map(|text| vec![text])
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, ConfigError> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(integer) => Ok(i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| integer.as_str().to_owned(), |number| number.to_string())),
        DeValue::Float(float) => Ok(float.as_str().to_owned()),
        DeValue::Boolean(boolean) => Ok(boolean.to_string()),
        DeValue::Datetime(_) => Err(problem("it takes no date or time of day; a duration is written as in \"10s\"")),
        DeValue::Array(_) => Err(problem("it takes no array in an array")),
        DeValue::Table(_) => Err(problem("it takes a value, not a table")),
    }
}

/// Whoever calls knows where.
fn problem(reason: &str) -> ConfigError {
    ConfigError::new(ConfigSource::Default, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample::Sample;

    fn of(text: &str) -> Layer {
        parse(Sample::keys(), Path::new("file"), text)
    }

    /// The texts of the one key that is set.
    fn set(text: &str) -> Vec<String> {
        let layer = of(text);
        assert_eq!(layer.problems, [], "{text}");
        let [setting] = <[KeyValue; 1]>::try_from(layer.settings).unwrap();
        setting.texts
    }

    fn problems(text: &str) -> Vec<String> {
        of(text).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_value_of_any_type_becomes_what_a_flag_would_be_given() {
        for (text, texts) in [
            ("most = 7", &["7"][..]),
            ("most = +7", &["7"]),
            ("most = 0x10", &["16"]),
            ("most = 1_000", &["1000"]),
            ("most = 7.50", &["7.50"]),
            ("most = \"7\"", &["7"]),
            ("most = ''", &[""]),
            ("may_be_open = true", &["true"]),
            ("may_be_open = \"false\"", &["false"]),
            ("\"most\" = 7", &["7"]),
            ("certificate = \"a, b\"", &["a, b"]),
            ("ports = [80, '443', ]", &["80", "443"]),
            ("ports = \"80, 443\"", &["80", "443"]),
            ("ports = 80", &["80"]),
            ("ports = [\n  80, # the first\n  443\n]", &["80", "443"]),
            ("origins = [\"a,b\"]", &["a,b"]),
            ("origins = []", &[]),
            ("origins = \"\"", &[]),
        ] {
            assert_eq!(set(text), texts, "{text}");
        }
    }

    #[test]
    fn a_type_that_cannot_be_meant_is_refused_in_words() {
        for (text, problem) in [
            ("most = [7]", "most: it takes one value, not an array"),
            ("most = { a = 7 }", "most: it takes a value, not a table"),
            ("most = 1979-05-27", "most: it takes no date or time of day; a duration is written as in \"10s\""),
            ("ports = [[80]]", "ports: it takes no array in an array"),
            ("ports = [80, { a = 7 }]", "ports: it takes a value, not a table"),
            ("[most]\nports = 1", "most: it takes a value, not a table"),
        ] {
            let problems = problems(text);
            assert!(problems.len() == 1 && problems[0].ends_with(problem), "{text}: {problems:?}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_where_it_is() {
        let text = "ports = [80, [1]]\r
            most 7
            kind: memory
            may_be_open = maybe
            certificates = \"a\"
            may-be-open = true
            colour = 1
            most = 8
            most = 9
            [doors]
            a = 1";
        let mut problems = of(text).problems;
        problems.sort_by(|one, other| one.origin.cmp(&other.origin));
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "file:1:1: ports: it takes no array in an array",
                "file:2:18: this is no TOML: key with no value, expected `=`",
                "file:3:19: this is no TOML: key with no value, expected `=`",
                "file:4:27: this is no TOML: string values must be quoted, expected literal string",
                "file:5:13: certificates: there is no such key; did you mean certificate?",
                "file:6:13: may-be-open: there is no such key; did you mean may_be_open?",
                "file:7:13: colour: there is no such key",
                "file:9:13: most: it is given twice, first in line 8",
                "file:10:14: doors: there are no tables here, every key stands by itself",
            ]
        );
        assert_eq!(of(text).settings[0].texts, ["8"], "the first");
    }

    #[test]
    fn a_key_that_is_spelt_as_a_flag_or_a_variable_is_known_again() {
        for (key, suggestion) in [("may-be-opened", "may_be_open"), ("MAY_BE_OPEN", "may_be_open"), ("Most", "most")] {
            let problems = problems(&format!("{key} = 1"));
            assert_eq!(problems, [format!("file:1:1: {key}: there is no such key; did you mean {suggestion}?")]);
        }
    }

    #[test]
    fn what_is_broken_is_told_once() {
        assert_eq!(problems("most == 7"), ["file:1:7: this is no TOML: extra `=`, expected nothing"]);
        let problems = problems("most = [1,\n 2");
        assert!(problems.len() == 1 && problems[0].starts_with("file:2:3: this is no TOML: "), "{problems:?}");
        assert_eq!(of("most = \"7\nports = 80").settings.len(), 1, "the next line is read");
    }

    #[test]
    fn a_column_counts_characters() {
        let layer = of("# \u{e9}\n'\u{e9}' = 1\n\u{e9} \u{e9}");
        let origins: Vec<_> = layer.problems.iter().map(|problem| format!("{:?}", problem.origin)).collect();
        assert!(origins.iter().any(|origin| origin.contains("line: 2, column: 1 ")), "{origins:?}");
        assert!(origins.iter().any(|origin| origin.contains("line: 3, column: 3 ")), "{origins:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let problem = |path: &Path| read(Sample::keys(), path).problems[0].to_string();
        let missing = directory.path().join("missing.toml");
        assert!(problem(&missing).starts_with(&format!("{}: it cannot be read: ", missing.display())));
        let binary = directory.path().join("binary.toml");
        fs::write(&binary, [0xff]).unwrap();
        assert!(problem(&binary).contains("it cannot be read: ") && problem(&binary).contains("UTF-8"));
        let good = directory.path().join("good.toml");
        fs::write(&good, "\u{feff}most = 7\r\n").unwrap();
        assert_eq!(read(Sample::keys(), &good).settings[0].texts, ["7"]);
    }
}
