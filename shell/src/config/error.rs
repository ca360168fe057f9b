//! What is wrong with a configuration, where, and what was probably meant.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value was given. In the order of precedence: of two, the greater one counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// Nowhere.
    Default,
    /// The configuration file as a whole.
    File(PathBuf),
    /// A place in the configuration file.
    Line {
        /// The file, as it was named.
        path: PathBuf,
        /// From 1 on.
        line: usize,
        /// In characters, from 1 on.
        column: usize,
    },
    /// This environment variable.
    Variable(String),
    /// This flag, with its hyphens.
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

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where.
    pub origin: ConfigSource,
    /// The keys it is about: one, several that do not go together, or none where the file is no TOML.
    pub keys: Vec<String>,
    /// What is wrong with them, and what would do.
    pub reason: String,
    /// What was probably meant instead.
    pub suggestion: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(origin: ConfigSource, reason: impl Into<String>) -> Self {
        Self { origin, keys: Vec::new(), reason: reason.into(), suggestion: None }
    }

    pub(crate) fn for_key(origin: ConfigSource, key: &str, reason: impl Into<String>) -> Self {
        Self { keys: vec![key.into()], ..Self::new(origin, reason) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, keys, reason, suggestion } = self;
        write!(f, "{origin}")?;
        if let ConfigSource::Line { column, .. } = origin {
            write!(f, ":{column}")?;
        }
        // A variable or a flag says already which key it is of.
        if keys.len() > 1 || matches!(origin, ConfigSource::Default | ConfigSource::File(_) | ConfigSource::Line { .. })
        {
            for (at, key) in keys.iter().enumerate() {
                write!(f, "{} {key}", if at == 0 { ":" } else { "," })?;
            }
        }
        write!(f, ": {reason}")?;
        match suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration: at least one thing, in the order of the file, then by variables and
/// flags.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

fn lines(problems: &[ConfigError]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The candidate that `word` is a misspelling of, if there is one.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = candidates.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    let (distance, candidate) = distances.min()?;
    // A third of its letters may be wrong: with more, short words are near to everything.
    (distance <= candidate.chars().count() / 3).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_what_and_what_instead() {
        let line = ConfigSource::Line { path: "sessions.toml".into(), line: 12, column: 3 };
        let problem = ConfigError::for_key(line.clone(), "limit", "it is too small");
        assert_eq!(problem.to_string(), "sessions.toml:12:3: limit: it is too small");
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
        let file = ConfigError::new(ConfigSource::File("sessions.toml".into()), "cannot be read");
        assert_eq!(file.to_string(), "sessions.toml: cannot be read");
        assert_eq!(line.to_string(), "sessions.toml:12", "as an origin it is a line");
        assert_eq!(ConfigErrors(vec![variable.clone(), file.clone()]).to_string(), format!("{variable}\n{file}"));
    }

    #[test]
    fn only_what_is_near_enough_is_suggested() {
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
