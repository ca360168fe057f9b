//! Silent connections to `operator.sock`, and an operator who runs a command beside them.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::probe::{Times, measure};
use crate::server::TargetServer;

/// An attack on the socket of the operator.
pub(crate) struct OperatorAttack {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
}

pub(crate) const ALL: [OperatorAttack; 2] = [
    OperatorAttack { name: "silent operators, 16 connections", connections: 16 },
    OperatorAttack { name: "silent operators, 1,000 connections", connections: 1000 },
];

/// How often an operator runs a command.
const INTERVAL: Duration = Duration::from_millis(200);

/// Runs a command at every tick, each as a process of its own.
pub(crate) fn run_commands_for(server: &TargetServer, duration: Duration) -> Result<Times> {
    measure(duration, INTERVAL, |_, due| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.arg("--data").arg(server.data()).args(["limit", "probe"]);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(due.elapsed())
    })
}

/// Connections that send nothing. When the server closes one, another one takes its place.
pub(crate) struct SilentConnections {
    socket: PathBuf,
    connections: Vec<Option<Socket>>,
}

impl SilentConnections {
    /// How often it looks at its connections.
    const TURN: Duration = Duration::from_millis(20);

    pub(crate) fn new(server: &TargetServer, connections: usize) -> Self {
        let socket = server.data().join("operator.sock");
        Self { socket, connections: (0..connections).map(|_| None).collect() }
    }

    pub(crate) fn run_until(&mut self, end: Instant) {
        while Instant::now() < end {
            let turn = Instant::now();
            for connection in &mut self.connections {
                if connection.as_mut().is_none_or(is_closed) {
                    // If the socket's queue is full, it comes back in the next turn.
                    *connection = connect(&self.socket);
                }
            }
            thread::sleep(Self::TURN.saturating_sub(turn.elapsed()));
        }
    }
}

fn is_closed(connection: &mut Socket) -> bool {
    !matches!(connection.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn connect(path: &Path) -> Option<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(&SockAddr::unix(path).ok()?).ok()?;
    Some(socket)
}
