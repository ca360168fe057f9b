use std::fs;
use std::path::Path;

use crate::config::print::effective;
use crate::config::{ConfigErrors, ConfigLoader, Flags, diff};

const STORE: (&str, &str) = ("STORE", "redis");
const URL: (&str, &str) = ("REDIS_URL", "redis://localhost");
const TLS_URL: (&str, &str) = ("REDIS_URL", "rediss://localhost");

fn loader(given: &[(&str, &str)]) -> ConfigLoader {
    let environment = given.iter().map(|&(key, value)| (format!("SESSIONS_{key}").into(), value.into()));
    ConfigLoader::new(Flags::default(), environment)
}

fn messages(errors: Option<ConfigErrors>) -> Vec<String> {
    errors.map(|ConfigErrors(errors)| errors.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

fn conflicts(given: &[(&str, &str)]) -> Vec<String> {
    messages(loader(given).load().err())
}

fn server_errors(given: &[(&str, &str)]) -> Vec<String> {
    messages(loader(given).load_for_server().err())
}

fn assert_one(errors: &[String], expected: &str) {
    assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:#?}\n{expected}");
}

#[test]
fn redis_needs_its_url_and_the_url_redis() {
    assert_one(&conflicts(&[STORE]), "SESSIONS_STORE: store, redis_url: store = \"redis\" needs redis_url");
    assert_one(&conflicts(&[URL]), "redis_url has no effect without store = \"redis\"");
    assert_eq!(conflicts(&[STORE, URL]), [""; 0]);
    // Nothing uses them.
    assert_eq!(conflicts(&[("REDIS_CERT", "a"), ("NODE_FENCE", "1s")]), [""; 0]);
}

#[test]
fn user_and_password_are_given_once() {
    let url = ("REDIS_URL", "redis://ada:hunter2@localhost");
    assert_one(&conflicts(&[STORE, url, ("REDIS_USER", "bob")]), "redis_url names a user, too");
    assert_one(&conflicts(&[STORE, url, ("REDIS_PASSWORD_FILE", "a")]), "redis_url has a password, too");
    let password = ("REDIS_PASSWORD", "hunter3");
    assert_one(
        &server_errors(&[STORE, url, password]),
        "SESSIONS_REDIS_PASSWORD: redis_url has a password, so neither",
    );
    let file = ("REDIS_PASSWORD_FILE", "/dev/null");
    assert_one(&server_errors(&[STORE, URL, password, file]), "set only one password");
    assert_one(&server_errors(&[STORE, URL, file]), "SESSIONS_REDIS_PASSWORD_FILE: the password in /dev/null is empty");
    let user = ("REDIS_USER", "ada");
    assert_one(&server_errors(&[STORE, URL, user]), "a user of the store needs a password");
    assert_eq!(server_errors(&[STORE, URL, user, password]), [""; 0]);
    // The password may be in the environment of the server.
    assert_eq!(messages(loader(&[STORE, URL, user]).load_for_other_server().err()), [""; 0]);
}

#[test]
fn certificates_need_tls_and_each_other() {
    let (ca, cert, key) = (("REDIS_CA", "a"), ("REDIS_CERT", "b"), ("REDIS_KEY", "c"));
    assert_eq!(conflicts(&[STORE, TLS_URL, ca, cert, key]), [""; 0]);
    assert_one(&conflicts(&[STORE, TLS_URL, cert]), "redis_cert, redis_key: a certificate needs its key");
    assert_one(&conflicts(&[STORE, TLS_URL, key]), "redis_key, redis_cert: a key needs its certificate");
    let errors = conflicts(&[STORE, URL, ca, cert, key]);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    for (error, key) in errors.iter().zip(["redis_ca", "redis_cert", "redis_key"]) {
        assert!(error.contains(&format!("{key} has no effect without TLS: begin the URL with rediss://")), "{error}");
    }
    let errors = server_errors(&[STORE, TLS_URL, ("REDIS_CA", "/missing/a"), ("REDIS_CERT", "/missing/b"), key]);
    let starts = ["REDIS_CA: cannot read /missing/a", "REDIS_CERT: cannot read /missing/b", "REDIS_KEY: cannot read c"];
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(&format!("SESSIONS_{start}")), "{error}");
    }
}

#[test]
fn times_that_do_not_fit_name_the_smallest_that_does() {
    let with = |keys: &[(&str, &str)]| conflicts(&[&[STORE, URL], keys].concat());
    assert_one(&with(&[("NODE_FENCE", "8999ms")]), "node_fence must be at least 9s");
    assert_eq!(with(&[("NODE_FENCE", "9s")]), [""; 0]);
    assert_one(&with(&[("STORE_TIMEOUT", "16500ms")]), "node_fence must be at least 20s 500ms");
    let lease = "with a node_fence of 20s, node_lease must be at least 20s 506ms";
    assert_one(&with(&[("NODE_LEASE", "20505ms")]), lease);
    assert_eq!(with(&[("NODE_LEASE", "20s 506ms")]), [""; 0]);
    let both = with(&[("NODE_BEAT", "1m")]);
    assert_eq!(both.len(), 2, "{both:#?}");
    assert!(both.iter().any(|error| error.contains("node_fence must be at least 2m 5s")), "{both:#?}");
    assert!(both.iter().any(|error| error.contains("with a node_fence of 2m 5s, node_lease must be at least")));
    // Whatever the other times are, some value works.
    let longest = [("NODE_BEAT", "1m"), ("STORE_TIMEOUT", "1m"), ("NODE_FENCE", "1h"), ("NODE_LEASE", "2h")];
    assert_eq!(with(&longest), [""; 0]);
}

#[test]
fn names_have_bounds() {
    let long = "x".repeat(65);
    for (key, value, is_valid) in [
        ("REDIS_PREFIX", &*long, false),
        ("REDIS_PREFIX", &long[1..], true),
        ("REDIS_PREFIX", "a-b_c.d:E9", true),
        ("REDIS_PREFIX", "{a}", false),
        ("REDIS_PREFIX", "a b", false),
        ("NODE_NAME", &long, false),
        ("NODE_NAME", &long[1..], true),
        ("NODE_NAME", "gr\u{fc}n-1", true),
        ("NODE_NAME", "a b", false),
        ("NODE_NAME", "a\u{7f}", false),
        ("REDIS_USER", "ada", true),
        ("REDIS_USER", "a b", false),
        ("NODE_BEAT", "99ms", false),
        ("NODE_BEAT", "61s", false),
        ("NODE_LEASE", "121m", false),
    ] {
        assert_eq!(conflicts(&[STORE, URL, (key, value)]).is_empty(), is_valid, "{key} {value}");
    }
}

fn file(directory: &Path, text: &str) -> ConfigLoader {
    let path = directory.join("sessions.toml");
    fs::write(&path, text).unwrap();
    ConfigLoader::from_file(path)
}

#[test]
fn no_password_is_ever_printed() {
    let directory = tempfile::tempdir().unwrap();
    let with_password = |password: &str| {
        let url = format!("redis://someone:{password}@localhost:7000/3");
        let loader = loader(&[STORE, ("REDIS_URL", &url)]);
        (loader.load().unwrap(), loader)
    };
    let (old, loader_of_old) = with_password("hunter2");
    let (new, _) = with_password("hunter3");
    let printed = effective(&old);
    assert!(printed.contains("\nredis_url = \"redis://***@localhost:7000/3\"  # SESSIONS_REDIS_URL\n"), "{printed}");
    let changes: Vec<_> = diff(&old, &new).iter().map(ToString::to_string).collect();
    let shown = "\"redis://***@localhost:7000/3\"";
    assert_eq!(changes, [format!("redis_url was {shown} and is {shown} after a restart")]);
    let variable = loader(&[STORE, URL, ("REDIS_PASSWORD", "hunter2"), ("JWT_SECRET", "hunter2")]);
    let invalid = conflicts(&[STORE, ("REDIS_URL", "redis://someone:hunter2@localhost:99999")]);
    assert_one(&invalid, "SESSIONS_REDIS_URL: invalid value '***': it must be redis://HOST");
    let mut texts =
        vec![printed, changes.concat(), invalid.concat(), format!("{old:?} {loader_of_old:?} {variable:?}")];
    for text in [
        "redis_url = \"redis://someone:hunter2@localhost:99999\"",
        "redis_url = \"redis://someone:hunter2@localhost\"\nredis_url = \"redis://someone:hunter2@localhost\"",
        "redis_url = redis://someone:hunter2@localhost",
        "redis_url = \"redis://someone:hunter2@localhost",
        "redis_url \"redis://someone:hunter2@localhost\"",
        "redis_url = [\"redis://someone:hunter2@localhost\"]",
        "redis_ulr = \"redis://someone:hunter2@localhost\"",
        "redis_url = \"redis://someone:hunter2\\@localhost\"",
        "store = \"redis\"\nredis_url = \"redis://someone:hunter2@localhost\"\nredis_password_file = \"a\"",
    ] {
        let errors = messages(file(directory.path(), text).load().err());
        assert!(!errors.is_empty(), "{text}");
        texts.extend(errors);
    }
    for text in texts {
        assert!(!text.contains("hunter") && !text.contains("someone"), "{text}");
    }
}
