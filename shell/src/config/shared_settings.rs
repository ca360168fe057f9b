//! The settings that all servers which share a store should have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;

use super::key::ReloadMode;
use super::table::Config;

/// Their names and values. `started` is the configuration at the start, for keys that change only with a restart; `in_force` the one that
/// was loaded last. A value has one form, however it was written.
#[must_use]
pub fn shared_settings(started: &Config, in_force: &Config) -> BTreeMap<String, String> {
    let (at_once, after_restart) = (values(in_force), values(started));
    let pick = |((name, new), (_, old)): ((&str, String), (&str, String))| {
        let key = Config::keys().iter().find(|key| key.name == name)?;
        let value = match key.applies {
            ReloadMode::AtOnce => new,
            ReloadMode::AfterRestart => old,
        };
        Some((name.to_owned(), value))
    };
    at_once.into_iter().zip(after_restart).filter_map(pick).collect()
}

fn values(config: &Config) -> [(&'static str, String); 15] {
    [
        ("limit", config.limit.to_string()),
        ("when_full", config.when_full.name().into()),
        ("client_choice", config.client_choice.to_string()),
        ("count", config.count.name().into()),
        ("max_sessions_per_device", config.max_sessions_per_device.to_string()),
        ("linger", time(config.linger)),
        ("linger_grace", time(config.linger_grace)),
        ("lingering_first", config.lingering_first.to_string()),
        ("max_waiting", config.max_waiting.to_string()),
        ("node_beat", time(config.node_beat)),
        ("node_fence", time(config.node_fence)),
        ("node_lease", time(config.node_lease)),
        ("store_timeout", time(config.store_timeout)),
        ("user_id_form", word(&config.user_id_form)),
        ("auth", word(&config.auth)),
    ]
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLoader, Flags};

    fn load(given: &[(&str, &str)]) -> Config {
        let environment = given.iter().map(|&(key, value)| (format!("SESSIONS_{key}").into(), value.into()));
        ConfigLoader::new(Flags::default(), environment).load().unwrap().config
    }

    #[test]
    fn settings_are_those_in_force_in_one_form() {
        let started = load(&[("LIMIT", "2"), ("NODE_BEAT", "2000ms")]);
        let reloaded = load(&[("LIMIT", "unlimited"), ("NODE_BEAT", "1s"), ("LINGER", "90s"), ("USER_ID_FORM", "nfc")]);
        let settings = shared_settings(&started, &reloaded);
        let of = |name: &str| settings[name].as_str();
        assert_eq!((of("limit"), of("linger"), of("when_full")), ("1024", "1m 30s", "deny"));
        // These need a restart.
        assert_eq!((of("node_beat"), of("user_id_form"), of("auth")), ("2s", "exact", "open"));
        assert_eq!(settings.len(), values(&started).len());
    }
}
