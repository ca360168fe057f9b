use super::*;
use std::path::PathBuf;
use std::time::Duration;

use crate::store::Retention;
use clap::Parser;
use session_core::ledger::SlotLimit;
use session_core::session::SessionSettings;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn parse(arguments: &[&str]) -> Result<Config, String> {
    let arguments = ["server"].iter().chain(arguments);
    let flags = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?.flags;
    Ok(ConfigLoader::new(flags, []).load().map_err(|errors| errors.to_string())?.config)
}

#[test]
fn defaults_are_the_core_defaults_on_localhost() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.session_settings(), SessionSettings::default());
    assert_eq!(config.limit, SlotLimit::default());
    assert_eq!(config.limit.slots(), 3);
    assert_eq!(config.forget_after, Retention::default());
    let addresses: Vec<_> = config.listen[0].resolve().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:3000", "[::1]:3000"]);
}

#[test]
fn invalid_value_is_an_error() {
    for (arguments, message) in [
        (["--limit", "1025"], "the most is 1024"),
        (["--limit", "-1"], "expected a whole number"),
        (["--limit", "many"], "expected a whole number"),
        (["--auth-timeout", "10"], "write it as in 10s"),
        (["--auth-timeout", "99ms"], "it must be 100ms to 1h"),
        (["--ping-interval", "2h"], "it must be 100ms to 1h"),
        (["--pong-timeout", "soon"], "write it as in 10s"),
        (["--store-timeout", "61s"], "it must be 10ms to 1m"),
        (["--forget-after", "59m"], "it must be 1h to 100years; or write `never`"),
        (["--forget-after", "101y"], "it must be 1h to 100years; or write `never`"),
        (["--forget-after", "30"], "write it as in 10s, 500ms or 2m; or write `never`"),
        (["--max-message-bytes", "1023"], "from 1024 to 1048576"),
        (["--threads", "0"], "from 1 to 256"),
        (["--linger", "25h"], "it must be 0s to 1day"),
        (["--when-full", "evict"], "[possible values: deny, evict-oldest]"),
        (["--count", "users"], "[possible values: sessions, devices]"),
        (["--max-sessions-per-device", "0"], "from 1 to 1024"),
        (["--max-sessions-per-device", "1025"], "from 1 to 1024"),
        (["--store", "sqlite"], "[possible values: lmdb, memory, redis]"),
        (["--listen", "3000"], "it must be HOST:PORT"),
        (["--listen", "localhost:70000"], "invalid port"),
        (["--listen", "::1:3000"], "needs brackets"),
        (["--listen", ":3000"], "it has no host"),
        (["--log", "shell=loud"], "invalid"),
        (["--log", "inof"], "\"inof\" is no level"),
    ] {
        let error = parse(&arguments).unwrap_err();
        assert!(error.contains(message), "{arguments:?}: {error}");
    }
}

#[test]
fn store_gets_its_retention_and_directory() {
    let forget = |time: &str| parse(&["--forget-after", time]).unwrap().lmdb().forget_after;
    let hours = |hours: u64| Retention::After(Duration::from_secs(hours * 3600));
    let times = ["never", "1h", "90d", "100years"].map(forget);
    assert_eq!(times, [Retention::Never, hours(1), hours(90 * 24), hours(876_600)]);
    let lmdb = parse(&["--data", "there", "--limit", "7"]).unwrap().lmdb();
    assert_eq!((lmdb.directory, lmdb.policy.limit), (PathBuf::from("there"), SlotLimit::new(7).unwrap()));
}

#[test]
fn listen_takes_lists_and_repeated_flags() {
    let config = parse(&["--listen", "127.0.0.1:1,127.0.0.1:2", "--listen", "[::1]:3"]).unwrap();
    let texts: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"]);
}
