//! An address that stays when the server behind it is replaced, and a line that can go dead.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

/// Passes connections on. Stops when dropped.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    server: SocketAddr,
    is_dead: bool,
    is_stopped: bool,
}

impl Relay {
    /// Passes every connection on to this server.
    pub(super) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { server, is_dead: false, is_stopped: false };
        let line = Arc::new(Line { state: Mutex::new(state), changed: Condvar::new() });
        let of = Arc::clone(&line);
        let thread = thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = {
                    let state = of.state.lock().unwrap();
                    if state.is_stopped {
                        return;
                    }
                    state.server
                };
                // While there is no server, the client is hung up on.
                let Ok(server) = TcpStream::connect(server) else { continue };
                let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
                for (from, to) in [(client, server), (both.1, both.0)] {
                    let line = Arc::clone(&of);
                    thread::spawn(move || line.pass_on(from, to));
                }
            }
        });
        Self { address, line, thread: Some(thread) }
    }

    /// From now on connections go to this server.
    pub(super) fn lead_to(&self, server: SocketAddr) {
        self.line.change(|state| state.server = server);
    }

    /// From now on nothing comes through, and no connection ends.
    pub(super) fn go_dead(&self) {
        self.line.change(|state| state.is_dead = true);
    }

    /// What was under way comes through.
    pub(super) fn come_back(&self) {
        self.line.change(|state| state.is_dead = false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.line.change(|state| state.is_stopped = true);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Line {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 4096];
        loop {
            let read = from.read(&mut bytes);
            let state = self.state.lock().unwrap();
            drop(self.changed.wait_while(state, |state| state.is_dead && !state.is_stopped).unwrap());
            match read {
                Ok(0) | Err(_) => return drop(to.shutdown(Shutdown::Write)),
                Ok(length) if to.write_all(&bytes[..length]).is_ok() => {}
                // That side is gone. If it said anything before, that must arrive, so this side is not cut.
                Ok(_) => return drop(io::copy(&mut from, &mut io::sink())),
            }
        }
    }
}
