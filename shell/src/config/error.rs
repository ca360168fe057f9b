//! Errors of a configuration: the source, the reason and a suggestion.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value comes from. Sources are ordered by precedence: the greater one wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// No source sets the key.
    Default,
    /// The configuration file as a whole.
    File(PathBuf),
    /// A position in the configuration file.
    Line {
        /// The file, as the user named it.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, with its hyphens.
    Flag(String),
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Line { path, line, column: _ } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One error, or one warning, of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the error is.
    pub source: ConfigSource,
    /// The keys it concerns: one, several that conflict, or none if the file is not TOML.
    pub keys: Vec<String>,
    /// What is wrong, and what is allowed.
    pub reason: String,
    /// A similar name that exists.
    pub suggestion: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(source: ConfigSource, reason: impl Into<String>) -> Self {
        Self { source, keys: Vec::new(), reason: reason.into(), suggestion: None }
    }

    pub(crate) fn for_key(source: ConfigSource, key: &str, reason: impl Into<String>) -> Self {
        Self { keys: vec![key.into()], ..Self::new(source, reason) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, keys, reason, suggestion } = self;
        // A key at its default is named alone.
        let has_place = *source != ConfigSource::Default || keys.is_empty();
        if has_place {
            write!(f, "{source}")?;
        }
        if let ConfigSource::Line { column, .. } = source {
            write!(f, ":{column}")?;
        }
        // The name of a variable or of a flag already names its key.
        if keys.len() > 1 || matches!(source, ConfigSource::Default | ConfigSource::File(_) | ConfigSource::Line { .. })
        {
            let first = if has_place { ": " } else { "" };
            for (at, key) in keys.iter().enumerate() {
                write!(f, "{}{key}", if at == 0 { first } else { ", " })?;
            }
        }
        write!(f, ": {reason}")?;
        match suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

/// All errors of a configuration, at least one: those of the file in its order, then those of variables, then of flags.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The candidate that `word` probably misspells.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = candidates.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    let (distance, candidate) = distances.min()?;
    // At most a third of the letters may differ. With more, short words would match anything.
    (distance <= candidate.chars().count() / 3).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_source_key_reason_and_suggestion() {
        let line = ConfigSource::Line { path: "sessions.toml".into(), line: 12, column: 3 };
        let error = ConfigError::for_key(line.clone(), "limit", "it is too small");
        assert_eq!(error.to_string(), "sessions.toml:12:3: limit: it is too small");
        let unknown =
            ConfigError { suggestion: Some("limit".into()), ..ConfigError::for_key(line.clone(), "limmit", "unknown") };
        assert_eq!(unknown.to_string(), "sessions.toml:12:3: limmit: unknown; did you mean limit?");
        let variable =
            ConfigError::for_key(ConfigSource::Variable("SESSIONS_LIMIT".into()), "limit", "it is too small");
        assert_eq!(variable.to_string(), "SESSIONS_LIMIT: it is too small");
        let both = ConfigError {
            keys: vec!["a".into(), "b".into()],
            ..ConfigError::new(ConfigSource::Flag("--a".into()), "no")
        };
        assert_eq!(both.to_string(), "--a: a, b: no");
        let missing = ConfigError::for_key(ConfigSource::Default, "jwt_secret_file", "there is none");
        assert_eq!(missing.to_string(), "jwt_secret_file: there is none");
        let file = ConfigError::new(ConfigSource::File("sessions.toml".into()), "cannot be read");
        assert_eq!(file.to_string(), "sessions.toml: cannot be read");
        assert_eq!(line.to_string(), "sessions.toml:12", "a source has no column");
        assert_eq!(ConfigErrors(vec![variable.clone(), file.clone()]).to_string(), format!("{variable}\n{file}"));
    }

    #[test]
    fn only_similar_names_are_suggested() {
        let keys = ["limit", "listen", "log", "log_format", "auth_timeout", "max_message_bytes"];
        for (word, suggestion) in [
            ("limits", Some("limit")),
            ("limti", Some("limit")),
            ("lsiten", Some("listen")),
            ("loq", Some("log")),
            ("auth_timout", Some("auth_timeout")),
            ("max_msg_bytes", Some("max_message_bytes")),
            ("colour", None),
            ("lag_for", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), suggestion, "{word}");
        }
    }
}
