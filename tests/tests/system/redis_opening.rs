//! Servers whose Redis cannot be used: they say why, and what to do, and end.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use tests::raw_client::{RawClient, Received};
use tests::redis_process::{NOTHING_KEPT, RedisProcess};
use tests::test_process::{SpawnedProcess, TestProcess, without_connection_limits};
use tests::waiting::eventually;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// Part of every password here. Nothing that the server prints has it.
const SECRET: &str = "hunter2";

/// A server whose store is at this URL.
fn server(url: &str) -> Command {
    let mut command = without_connection_limits(SERVER);
    command.args(["--store", "redis", "--redis-url", url, "--log", "warn", "--store-timeout", "1s"]);
    command.args(["--node-beat", "200ms", "--node-fence", "6s", "--node-lease", "7s"]);
    command.stderr(Stdio::piped());
    command
}

/// What the server says that does not start.
fn failure(command: Command, data: &Path) -> String {
    let failure = SpawnedProcess::spawn(command, data).wait_for_failure();
    assert_eq!(failure.code, Some(1), "{}", failure.message);
    assert!(!failure.message.contains(SECRET), "{}", failure.message);
    failure.message
}

/// The server with this URL does not start, and says these words.
fn expect_refused(url: &str, words: &[&str]) {
    let data = tempfile::tempdir().unwrap();
    let message = failure(server(url), data.path());
    for word in words {
        // Once: a cause that is told twice hides what else is there.
        assert_eq!(message.matches(word).count(), 1, "{word:?}: {message}");
    }
}

/// A Redis with a user of this name, with these rights and a password.
fn add_user(redis: &RedisProcess, user: &str, rights: &[&str]) -> String {
    let password = format!(">{SECRET}");
    redis.command(&[&["ACL", "SETUSER", user, "reset", "on", &password], rights].concat());
    format!("redis://{user}:{SECRET}@{}", redis.address())
}

#[test]
fn server_says_that_nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    expect_refused(&format!("redis://user:{SECRET}@{address}"), &["cannot use the store at redis://", "refused"]);
}

/// What listens there does this with each connection, which it gets until the server has ended.
fn listen(behave: fn(&mut TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let streams = listener.incoming().map(|stream| {
            let mut stream = stream.unwrap();
            behave(&mut stream);
            stream
        });
        let _open: Vec<_> = streams.take(3).collect();
    });
    address
}

#[test]
fn server_says_that_something_else_answers() {
    let address = listen(|stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap());
    expect_refused(&format!("redis://{address}"), &["does not answer as Redis does"]);
}

#[test]
fn server_says_what_may_be_wrong_with_tls() {
    let silent = listen(|_| {});
    expect_refused(&format!("rediss://{silent}"), &["not answer in time", "no TLS: then the URL begins with redis://"]);
    let message_of = |url: &str| failure(server(url), tempfile::tempdir().unwrap().path());
    let message = message_of(&format!("redis://{silent}"));
    assert!(message.contains("not answer in time") && !message.contains("TLS"), "{message}");
    let hangs_up = listen(|stream| stream.shutdown(Shutdown::Both).unwrap());
    expect_refused(&format!("redis://{hangs_up}"), &["only TLS: then the URL begins with rediss://"]);
}

#[test]
fn server_says_what_is_wrong_with_the_password() {
    if !RedisProcess::is_installed() {
        return;
    }
    let password = format!("{SECRET} of the default user");
    let redis = RedisProcess::start(&NOTHING_KEPT);
    let address = redis.address();
    let closed = add_user(&redis, "closed", &["~*", "&*", "+@all"]);
    redis.command(&["ACL", "SETUSER", "closed", "off"]);
    redis.command(&["CONFIG", "SET", "requirepass", &password]);
    expect_refused(&redis.url(), &["needs a password", "redis_password_file", "SESSIONS_REDIS_PASSWORD"]);
    for url in [&format!("redis://:wrong-{SECRET}@{address}"), &format!("redis://bob:{SECRET}@{address}"), &closed] {
        expect_refused(url, &["user or password"]);
    }
    let mut command = server(&redis.url());
    command.env("SESSIONS_REDIS_PASSWORD", format!("wrong {SECRET}"));
    assert!(failure(command, tempfile::tempdir().unwrap().path()).contains("user or password"));
}

#[test]
fn server_says_which_rights_it_lacks() {
    if !RedisProcess::is_installed() {
        return;
    }
    let redis = RedisProcess::start(&NOTHING_KEPT);
    for (rights, word) in [
        (&["~*", "&*", "+@all", "-evalsha"][..], "run the 'evalsha'"),
        (&["~*", "&*", "+@all", "-info"], "run the 'info'"),
        (&["~*", "&*", "+@all", "-hmget"], "(HMGET)"),
        (&["~*", "&*", "+@all", "-publish"], "(PUBLISH on"),
        (&["~*", "&*", "+@all", "-subscribe"], "(SUBSCRIBE on"),
        (&["~other:*", "&*", "+@all"], "one of the keys"),
        (&["~*", "&other:*", "+@all"], "PUBLISH on the channels sessions:node:*"),
    ] {
        let url = add_user(&redis, "app", rights);
        expect_refused(&url, &[word, "ACL SETUSER <user> '~{sessions:*' "]);
    }
}

#[test]
fn rights_that_the_server_asks_for_suffice() {
    if !RedisProcess::is_installed() {
        return;
    }
    let (redis, data) = (RedisProcess::start(&NOTHING_KEPT), tempfile::tempdir().unwrap());
    let message = failure(server(&add_user(&redis, "app", &[])), data.path());
    redis.command(&["ACL", "LOG", "RESET"]);
    redis.command(&["CONFIG", "RESETSTAT"]);
    let rights = message.trim_end().split_once("ACL SETUSER <user> ").unwrap().1;
    let rights: Vec<_> = rights.split(' ').map(|right| right.trim_matches('\'')).collect();
    let process = SpawnedProcess::spawn(server(&format!("{}/3", add_user(&redis, "app", &rights))), data.path())
        .listen()
        .unwrap();
    assert_eq!(process.health(), 503, "the gate is closed");
    let answer = |command: &[&str]| {
        let output = Command::new(SERVER).args(command).arg("--data").arg(data.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let mut explained = String::new();
    eventually("it has looked into the Redis", || {
        explained = answer(&["explain", "eve"]);
        !explained.is_empty()
    });
    assert!(explained.contains("no session is admitted now; a client is told: "), "{explained}");
    assert!(explained.ends_with("after that the next session would get a slot\n"), "{explained}");
    let status = answer(&["status"]);
    assert!(status.contains("users          0 known; 0 with overrides\n") && !status.contains(" map"), "{status}");
    eventually("it admits", || process.health() == 200);
    assert!(admits(&process));
    for command in [&["users"][..], &["status"], &["explain", "eve"], &["limit", "eve", "3"]] {
        let answer = Command::new(SERVER).args(command).arg("--data").arg(data.path()).output().unwrap();
        assert!(answer.status.success(), "{command:?}: {}", String::from_utf8_lossy(&answer.stderr));
    }
    assert_eq!(redis.command(&["ACL", "LOG"]), redis::Value::Array(vec![]), "the server does nothing else");
    let errors: String = redis::from_redis_value(redis.command(&["INFO", "errorstats"])).unwrap();
    assert_eq!(errors.trim(), "# Errorstats", "the server sends nothing that this Redis does not know");
}

#[test]
fn server_wants_the_primary() {
    if !RedisProcess::is_installed() {
        return;
    }
    let (primary, replica) = (RedisProcess::start(&NOTHING_KEPT), RedisProcess::start(&NOTHING_KEPT));
    let port = primary.address().port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]);
    expect_refused(&replica.url(), &["replica", "primary"]);
}

#[test]
fn server_says_that_the_redis_still_reads_its_data() {
    if !RedisProcess::is_installed() {
        return;
    }
    let mut redis = RedisProcess::start(&NOTHING_KEPT);
    redis.restart_loading();
    expect_refused(&redis.url(), &["loading the dataset", "still reading its data, try again soon"]);
    assert!(redis.is_loading(), "the server did not wait");
    redis.finish_loading();
    assert!(SpawnedProcess::spawn(server(&redis.url()), tempfile::tempdir().unwrap().path()).listen().is_ok());
}

#[test]
fn data_directory_has_one_server() {
    if !RedisProcess::is_installed() {
        return;
    }
    let (redis, data) = (RedisProcess::start(&NOTHING_KEPT), tempfile::tempdir().unwrap());
    let _first = SpawnedProcess::spawn(server(&redis.url()), data.path()).listen().unwrap();
    let message = failure(server(&redis.url()), data.path());
    assert!(message.contains(&data.path().display().to_string()) && message.contains("use"), "{message}");
    let file = data.path().join("a file");
    fs::write(&file, "").unwrap();
    assert!(failure(server(&redis.url()), &file).contains("cannot use the data directory"));
}

/// A right is taken away and given back, within the fence.
#[test]
fn sessions_go_on_while_a_right_is_missing() {
    if !RedisProcess::is_installed() {
        return;
    }
    let (redis, data) = (RedisProcess::start(&NOTHING_KEPT), tempfile::tempdir().unwrap());
    let process = SpawnedProcess::spawn(server(&redis.url()), data.path()).listen().unwrap();
    eventually("it admits", || process.health() == 200);
    let mut held = RawClient::authenticated(process.address, "ada", 1);
    redis.command(&["ACL", "SETUSER", "default", "-evalsha"]);
    assert!(!admits(&process), "the store refuses");
    redis.command(&["ACL", "SETUSER", "default", "+evalsha"]);
    eventually("it admits again", || admits(&process));
    eventually("the health check says so", || process.health() == 200);
    held.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    held.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1}}"#);
    held.send_bye();
}

/// Whether a user is admitted. A refusal closes with 1013.
fn admits(process: &TestProcess) -> bool {
    let mut peer = RawClient::open(process.address);
    peer.authenticate("eve");
    match peer.read() {
        Received::Text(text) if text.contains("AUTHENTICATE_SUCCESS") => {
            peer.send_bye();
            true
        }
        Received::Text(_) => {
            peer.expect_goodbye(1013);
            false
        }
        other => panic!("{other:?}"),
    }
}
