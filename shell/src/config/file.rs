//! Reads the configuration file: TOML (<https://toml.io/en/v1.0.0>), keys without tables.
//!
//! The reader goes on after an error, so that it reports every error at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigSource, nearest};
use super::key::Key;
use super::layer::{KeyValue, Layer};
use super::value::Shape;
use crate::runtime::access::{self, Right};

/// What this file sets.
pub(super) fn read(keys: &'static [Key], path: &Path) -> Layer {
    match fs::read_to_string(path) {
        Ok(text) => parse(keys, path, &text),
        Err(error) => {
            let error = ConfigError::new(
                ConfigSource::File(path.into()),
                format!("it cannot be read: {}", access::explain(&error, path, Right::Read)),
            );
            Layer { errors: vec![error], ..Layer::default() }
        }
    }
}

fn parse(keys: &'static [Key], path: &Path, text: &str) -> Layer {
    let document = Document { path, text };
    let (readable, mut syntax_errors) = document.blank_lines_without_value();
    let (table, more_errors) = DeTable::parse_recoverable(&readable);
    syntax_errors.extend(more_errors);
    let table = table.into_inner();
    let mut layer = Layer::default();
    let mut broken_lines = BTreeSet::new();
    for error in syntax_errors {
        let span = error.span().unwrap_or_default();
        let given = text.get(span.clone()).unwrap_or_default();
        let first = table.keys().find(|key| error.message() == DUPLICATE && key.get_ref() == given);
        if let Some(first) = first {
            let reason = format!("it is given twice, first in line {}", document.line(first.span().start));
            layer.errors.push(ConfigError::for_key(document.source(span.start), given, reason));
        } else if broken_lines.insert(document.line(span.start)) {
            let reason = format!("this is not TOML: {}", error.message());
            layer.errors.push(ConfigError::new(document.source(span.start), reason));
        }
    }
    for (name, value) in &table {
        let (start, end) = (name.span().start, name.span().end.max(value.span().end));
        // The parser guesses what a broken line means. Its guess is not worth a second error.
        if broken_lines.range(document.line(start)..=document.line(end)).next().is_some() {
            continue;
        }
        let (source, name, value) = (document.source(start), name.get_ref(), value.get_ref());
        let known = keys.iter().find(|key| key.name == name);
        match known.ok_or_else(|| unknown(keys, name, value)).and_then(|key| Ok((key, texts(key, value)?))) {
            Ok((key, texts)) => layer.settings.push(KeyValue { key, texts, source }),
            Err(error) => layer.errors.push(ConfigError { source, keys: vec![name.to_string()], ..error }),
        }
    }
    layer
}

/// The parser's message for a key that is already set.
const DUPLICATE: &str = "duplicate key";

/// The parser's message for a line without `=`. After it the parser still looks for errors, but keeps no more keys.
const NO_VALUE: &str = "key with no value";

struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    fn before(&self, offset: usize) -> &str {
        self.text.get(..offset).unwrap_or(self.text)
    }

    /// Replaces each line without `=` by spaces, so that the parser keeps the keys after it. Returns the text, and the
    /// errors of those lines.
    fn blank_lines_without_value(&self) -> (String, Vec<toml::de::Error>) {
        let (_, mut syntax_errors) = DeTable::parse_recoverable(self.text);
        syntax_errors.retain(|error| error.message().starts_with(NO_VALUE));
        let blank: BTreeSet<_> =
            syntax_errors.iter().filter_map(|error| Some(self.line(error.span()?.start))).collect();
        let lines = self.text.split('\n').zip(1..);
        let lines =
            lines.map(|(line, number)| if blank.contains(&number) { " ".repeat(line.len()) } else { line.into() });
        (lines.collect::<Vec<_>>().join("\n"), syntax_errors)
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.before(offset).matches('\n').count()
    }

    fn source(&self, offset: usize) -> ConfigSource {
        let line = self.before(offset).rsplit('\n').next().unwrap_or_default();
        ConfigSource::Line { path: self.path.into(), line: self.line(offset), column: 1 + line.chars().count() }
    }
}

fn unknown(keys: &'static [Key], name: &str, value: &DeValue<'_>) -> ConfigError {
    if value.is_table() {
        return without_source("tables are not supported, write every key at the top level");
    }
    let spelling = name.to_lowercase().replace('-', "_");
    let suggestion = nearest(&spelling, keys.iter().map(|key| key.name)).map(str::to_owned);
    ConfigError { suggestion, ..without_source("unknown key") }
}

/// The texts that a flag would have in place of this value.
fn texts(key: &Key, value: &DeValue<'_>) -> Result<Vec<String>, ConfigError> {
    let is_list = key.shape == Shape::List;
    match value {
        DeValue::String(text) => Ok(key.split(text)),
        DeValue::Array(values) if is_list => values.iter().map(|value| scalar(value.get_ref())).collect(),
        DeValue::Array(_) => Err(without_source("expected one value, not an array")),
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
        DeValue::Datetime(_) => Err(without_source("expected no date or time of day; write a duration as in \"10s\"")),
        DeValue::Array(_) => Err(without_source("expected no array in an array")),
        DeValue::Table(_) => Err(without_source("expected a value, not a table")),
    }
}

/// The caller fills in the source.
fn without_source(reason: &str) -> ConfigError {
    ConfigError::new(ConfigSource::Default, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample::Sample;

    fn layer(text: &str) -> Layer {
        parse(Sample::keys(), Path::new("file"), text)
    }

    /// The texts of the one key that is set.
    fn set(text: &str) -> Vec<String> {
        let layer = layer(text);
        assert_eq!(layer.errors, [], "{text}");
        let [setting] = <[KeyValue; 1]>::try_from(layer.settings).unwrap();
        setting.texts
    }

    fn errors(text: &str) -> Vec<String> {
        layer(text).errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn toml_value_becomes_the_texts_of_a_flag() {
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
    fn wrong_toml_type_is_an_error() {
        for (text, error) in [
            ("most = [7]", "most: expected one value, not an array"),
            ("most = { a = 7 }", "most: expected a value, not a table"),
            ("most = 1979-05-27", "most: expected no date or time of day; write a duration as in \"10s\""),
            ("ports = [[80]]", "ports: expected no array in an array"),
            ("ports = [80, { a = 7 }]", "ports: expected a value, not a table"),
            ("[most]\nports = 1", "most: expected a value, not a table"),
        ] {
            let errors = errors(text);
            assert!(errors.len() == 1 && errors[0].ends_with(error), "{text}: {errors:?}");
        }
    }

    #[test]
    fn every_error_has_its_line_and_column() {
        let text = "ports = [80, [1]]\r
            most 7
            kind: memory
            may_be_open = maybe
            certificates = \"a\"
            may-be-open = true
            colour = 1
            most = 8
            most = 9
            [access]
            a = 1";
        let mut errors = layer(text).errors;
        errors.sort_by(|one, other| one.source.cmp(&other.source));
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "file:1:1: ports: expected no array in an array",
                "file:2:18: this is not TOML: key with no value, expected `=`",
                "file:3:19: this is not TOML: key with no value, expected `=`",
                "file:4:27: this is not TOML: string values must be quoted, expected literal string",
                "file:5:13: certificates: unknown key; did you mean certificate?",
                "file:6:13: may-be-open: unknown key; did you mean may_be_open?",
                "file:7:13: colour: unknown key",
                "file:9:13: most: it is given twice, first in line 8",
                "file:10:14: access: tables are not supported, write every key at the top level",
            ]
        );
        assert_eq!(layer(text).settings[0].texts, ["8"], "the first");
    }

    #[test]
    fn flag_or_variable_spelling_suggests_the_key() {
        for (key, suggestion) in [("may-be-opened", "may_be_open"), ("MAY_BE_OPEN", "may_be_open"), ("Most", "most")] {
            let errors = errors(&format!("{key} = 1"));
            assert_eq!(errors, [format!("file:1:1: {key}: unknown key; did you mean {suggestion}?")]);
        }
    }

    #[test]
    fn broken_line_is_reported_once() {
        assert_eq!(errors("most == 7"), ["file:1:7: this is not TOML: extra `=`, expected nothing"]);
        let errors = errors("most = [1,\n 2");
        assert!(errors.len() == 1 && errors[0].starts_with("file:2:3: this is not TOML: "), "{errors:?}");
        assert_eq!(layer("most = \"7\nports = 80").settings.len(), 1, "the next line is read");
    }

    #[test]
    fn column_counts_characters() {
        let layer = layer("# \u{e9}\n'\u{e9}' = 1\n\u{e9} \u{e9}");
        let sources: Vec<_> = layer.errors.iter().map(|error| format!("{:?}", error.source)).collect();
        assert!(sources.iter().any(|source| source.contains("line: 2, column: 1 ")), "{sources:?}");
        assert!(sources.iter().any(|source| source.contains("line: 3, column: 3 ")), "{sources:?}");
    }

    #[test]
    fn unreadable_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = |path: &Path| read(Sample::keys(), path).errors[0].to_string();
        let missing = directory.path().join("missing.toml");
        assert!(error(&missing).starts_with(&format!("{}: it cannot be read: ", missing.display())));
        let binary = directory.path().join("binary.toml");
        fs::write(&binary, [0xff]).unwrap();
        assert!(error(&binary).contains("it cannot be read: ") && error(&binary).contains("UTF-8"));
        let good = directory.path().join("good.toml");
        fs::write(&good, "\u{feff}most = 7\r\n").unwrap();
        assert_eq!(read(Sample::keys(), &good).settings[0].texts, ["7"]);
    }
}
