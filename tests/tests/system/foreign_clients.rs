//! WebSocket clients of others, as they are by default, against the real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use tests::programs::{is_installed, libraries};
use tests::test_process::TestProcess;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// Signs in with the Origin that the library sends by itself. Prints what it receives, and the subprotocol.
const PYTHON: &str = r#"
import sys, websocket
for options in ({}, {"subprotocols": ["graphql-ws", "sessions.v1"]}):
    socket = websocket.create_connection(sys.argv[1], timeout=20, **options)
    socket.recv()
    socket.send('{"type":"AUTHENTICATE","payload":"ada"}')
    print(socket.recv(), socket.getsubprotocol())
    socket.close()
"#;

/// Offers the subprotocol that the server speaks, and then only others.
const NODE: &str = r#"
const WebSocket = require("ws");
const [url] = process.argv.slice(-1);
const socket = new WebSocket(url, ["graphql-ws", "sessions.v1"], { origin: url.replace("ws:", "http:").slice(0, -1) });
socket.once("message", () => {
  socket.once("message", (text) => {
    console.log(String(text), socket.protocol);
    socket.close();
    const other = new WebSocket(url, ["graphql-ws"]);
    other.on("error", (error) => console.log(error.message));
    other.on("close", () => process.exit());
  });
  socket.send('{"type":"AUTHENTICATE","payload":"ada"}');
});
socket.on("error", (error) => { console.log(error.message); process.exit(1); });
"#;

const SIGNED_IN: &str = r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#;

fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", libraries().join("python"));
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", libraries().join("node_modules"));
    command
}

fn start(data: &Path) -> TestProcess {
    TestProcess::start(SERVER, data, &[])
}

/// Runs a client that succeeds, and returns what it prints.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (printed, errors) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{printed}{errors}");
    printed
}

#[test]
fn python_client_connects_with_its_own_origin() {
    if !is_installed("python3 with websocket-client", python().args(["-c", "import websocket; websocket.WebSocket"])) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let printed = run(python().args(["-c", PYTHON, &server.url()]));
    let lines: Vec<_> = printed.lines().collect();
    // The second may connect before the server has noticed that the first is gone.
    assert_eq!(lines.len(), 2, "{printed}");
    assert_eq!(lines[0], format!("{SIGNED_IN} None"));
    assert!(
        lines[1].starts_with(r#"{"type":"AUTHENTICATE_SUCCESS""#) && lines[1].ends_with(" sessions.v1"),
        "{printed}"
    );
}

#[test]
fn node_client_gets_its_subprotocol() {
    if !is_installed("node with ws", node().args(["-e", "require('ws')"])) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let printed = run(node().args(["-e", NODE, "--", &server.url()]));
    assert_eq!(printed, format!("{SIGNED_IN} sessions.v1\nServer sent no subprotocol\n"));
}
