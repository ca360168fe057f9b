//! An application's site: its page, its tokens, and the session server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tests::key_provider::{Answer, TestProvider};
use tests::test_process::{TestProcess, send_signal};

use super::relay::Relay;
use super::tab::{Profile, Tab};

pub(super) const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// The session server keeps a lost session's slot for a minute, and lets clients choose whom to end.
pub(super) const RULES: [&str; 5] = ["--client-choice", "--linger", "1m", "--auth-timeout", "1m"];

/// The site, and a browser to visit it. Everything ends when it is dropped.
pub(super) struct Site {
    pub(super) browser: Profile,
    pub(super) relay: Relay,
    server: TestProcess,
    pages: TestProvider,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Site {
    /// A site with [`RULES`] and these arguments. `None` if no browser is installed, and none is required.
    pub(super) fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_with(arguments, |_| Vec::new())
    }

    /// As [`Site::start`], with further arguments that name files in this directory.
    pub(super) fn start_with(arguments: &[&str], more: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let browser = Profile::new()?;
        let pages = TestProvider::start();
        let body = include_str!("page.html").to_owned();
        pages.set("/", Answer::With { status: "200 OK", headers: vec!["content-type: text/html".into()], body });
        let directory = tempfile::tempdir().unwrap();
        let mut all = vec!["--allowed-origins".to_owned(), pages.url("")];
        all.extend(RULES.iter().chain(arguments).map(|&argument| argument.to_owned()));
        all.extend(more(directory.path()));
        let server = launch(directory.path(), &all);
        let relay = Relay::start(server.address);
        Some(Self { browser, relay, server, pages, directory, arguments: all })
    }

    /// Opens the page in a new tab, as ada.
    pub(super) fn open(&self, label: &str) -> Tab {
        self.open_at(self.relay.address, &format!("user=ada&label={label}"))
    }

    /// Opens the page in a new tab with these options, and the session server at this address.
    pub(super) fn open_at(&self, address: SocketAddr, options: &str) -> Tab {
        self.browser.open(&self.pages.url(&format!("/#server=ws://{address}/&{options}")))
    }

    /// The address of the server, past the relay.
    pub(super) const fn server_address(&self) -> SocketAddr {
        self.server.address
    }

    /// What the application answers at this path.
    pub(super) fn serve(&self, path: &str, text: &str) {
        let headers = vec!["content-type: text/plain".into()];
        self.pages.set(path, Answer::With { status: "200 OK", headers, body: text.to_owned() });
    }

    /// Shuts the server down in order, and starts it again.
    pub(super) fn restart(&mut self) {
        send_signal(self.server.id(), Signal::TERM);
        assert!(self.server.wait().success());
        self.start_again();
    }

    /// Ends the server with SIGKILL, and starts it again.
    pub(super) fn kill_and_restart(&mut self) {
        self.server.kill();
        self.start_again();
    }

    fn start_again(&mut self) {
        self.server = launch(self.directory.path(), &self.arguments);
        self.relay.lead_to(self.server.address);
    }

    /// The server's data directory.
    pub(super) fn data(&self) -> PathBuf {
        data(self.directory.path())
    }
}

fn launch(directory: &Path, arguments: &[String]) -> TestProcess {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    TestProcess::start(SERVER, &data(directory), &arguments)
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Writes a file, and returns its path as an argument.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
