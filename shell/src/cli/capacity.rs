//! Whether the limit of open files leaves room for the connections that the configuration allows.

use crate::config::value::Bound;
use crate::config::{Config, ConfigSource, Loaded};
use crate::runtime::open_files::OpenFileLimit;

/// What the limit of open files means for the connections.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    /// All of them fit, or nobody has asked for more than fit.
    Enough,
    /// Fewer fit. The message says how many, and what to do.
    Reduced(String),
    /// None fits. The server must not start.
    None(String),
}

impl Capacity {
    /// Fewer are probably a mistake, even if nobody asked for more.
    const FEW: u64 = 1000;

    /// Compares the limit with the configuration.
    pub(super) fn check(limit: &OpenFileLimit, loaded: &Loaded) -> Self {
        let asked = match loaded.config.max_connections {
            // The operator wants the limit of open files to be the only one.
            Bound::Unlimited => return Self::Enough,
            Bound::AtMost(max) => u64::from(max.get()),
        };
        let mut settings = loaded.settings.iter();
        let setting = settings.find(|setting| setting.key.name == "max_connections");
        let is_explicit = setting.is_some_and(|setting| setting.source != ConfigSource::Default);
        Self::assess(limit, asked, is_explicit)
    }

    fn assess(limit: &OpenFileLimit, asked: u64, is_explicit: bool) -> Self {
        const SPARE: u64 = Config::SPARE_DESCRIPTORS;
        let files = limit.now;
        if files <= SPARE {
            return Self::None(format!(
                "the process may open {files} files, and the server keeps {SPARE} of them free of connections. {}; or set \
                 max_connections to unlimited",
                capitalised(&limit.advice(asked.min(Self::FEW) + SPARE))
            ));
        }
        let room = files - SPARE;
        if room >= asked || (room >= Self::FEW && !is_explicit) {
            return Self::Enough;
        }
        let needed = if is_explicit { asked } else { asked.min(Self::FEW) } + SPARE;
        Self::Reduced(format!(
            "the limit of open files leaves room for few connections: {room} instead of max_connections = {asked}. {}",
            capitalised(&limit.advice(needed))
        ))
    }
}

fn capitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::open_files::Starter;

    fn limit(files: u64) -> OpenFileLimit {
        OpenFileLimit { before: 64, now: files, hard: files, failure: None, starter: Starter::Privileged }
    }

    #[test]
    fn server_without_spare_files_has_no_capacity() {
        for (files, is_none) in [(0, true), (128, true), (129, false)] {
            let capacity = Capacity::assess(&limit(files), 100_000, false);
            assert_eq!(matches!(capacity, Capacity::None(_)), is_none, "{capacity:?}");
        }
        let Capacity::None(message) = Capacity::assess(&limit(128), 100_000, false) else { panic!("128 are spare") };
        assert_eq!(
            message,
            "the process may open 128 files, and the server keeps 128 of them free of connections. Start it after ulimit -n \
             1128; or set max_connections to unlimited"
        );
    }

    #[test]
    fn fewer_connections_than_asked_for_are_reported() {
        for (files, asked, is_explicit, is_enough) in [
            (1127, 100_000, false, false),
            (1128, 100_000, false, true),
            (1128, 100_000, true, false),
            (100_127, 100_000, true, false),
            (100_128, 100_000, true, true),
            (137, 10, true, false),
            (138, 10, true, true),
            (138, 10, false, true),
        ] {
            let capacity = Capacity::assess(&limit(files), asked, is_explicit);
            assert_eq!(capacity == Capacity::Enough, is_enough, "{files} {asked} {is_explicit}: {capacity:?}");
        }
        let Capacity::Reduced(message) = Capacity::assess(&limit(160), 500, true) else { panic!("32 are fewer") };
        assert_eq!(
            message,
            "the limit of open files leaves room for few connections: 32 instead of max_connections = 500. Start it after \
             ulimit -n 628"
        );
    }
}
