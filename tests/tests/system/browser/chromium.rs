//! One Chromium for all tests that run at the same time, over the DevTools protocol.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::programs::chromium;
use tests::waiting::TIMEOUT;

/// What a page of our own on this machine needs no more than.
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--remote-debugging-pipe",
    // It opens pages of these tests only. In a container, or as root, it has no rights to build its sandbox.
    "--no-sandbox",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-breakpad",
];

/// A browser with a profile of its own. Ends when the last test that uses it drops it; and when the process of the tests
/// ends, however that ends, because its pipe closes.
pub(super) struct Chromium {
    child: Child,
    commands: Mutex<Commands>,
    answers: Answers,
    directory: tempfile::TempDir,
}

struct Commands {
    pipe: Option<ChildStdin>,
    last: u64,
}

/// Who waits for the answer to which command. `None` once the browser has ended.
type Answers = Arc<Mutex<Option<HashMap<u64, Sender<Value>>>>>;

impl Chromium {
    /// The browser that runs, or a new one. `None` if none is installed, and none is required.
    pub(super) fn shared() -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<Chromium>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(browser) = running.upgrade() {
            return Some(browser);
        }
        let browser = Arc::new(Self::start(chromium()?));
        *running = Arc::downgrade(&browser);
        Some(browser)
    }

    fn start(program: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let errors = File::create(directory.path().join("errors")).unwrap();
        // The browser reads commands from descriptor 3, and writes answers to descriptor 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#, "sh", program])
            .args(ARGUMENTS)
            .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let commands = Mutex::new(Commands { pipe: child.stdin.take(), last: 0 });
        let answers: Answers = Arc::new(Mutex::new(Some(HashMap::new())));
        let mut pipe = BufReader::new(child.stdout.take().unwrap());
        let of = Arc::clone(&answers);
        thread::spawn(move || {
            let mut message = Vec::new();
            while pipe.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                let answer: Value = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message)).unwrap();
                message.clear();
                // Events have no id.
                let waiting = answer["id"].as_u64().and_then(|id| of.lock().unwrap().as_mut().unwrap().remove(&id));
                // A test that has failed does not wait.
                let _nobody = waiting.map(|sender| sender.send(answer));
            }
            *of.lock().unwrap() = None;
        });
        let browser = Self { child, commands, answers, directory };
        browser.call(None, "Browser.getVersion", &json!({})).unwrap();
        browser
    }

    /// Gives a command to the browser, or to the page of this DevTools session, and waits for the answer.
    ///
    /// # Errors
    /// If the browser refuses, such as for a page that is being replaced.
    pub(super) fn call(&self, session: Option<&str>, method: &str, parameters: &Value) -> Result<Value, String> {
        let (sender, answer) = channel();
        {
            let mut commands = self.commands.lock().unwrap();
            commands.last += 1;
            let id = commands.last;
            if let Some(waiting) = &mut *self.answers.lock().unwrap() {
                waiting.insert(id, sender);
            }
            let mut command = json!({ "id": id, "method": method, "params": parameters });
            if let Some(session) = session {
                command["sessionId"] = session.into();
            }
            let pipe = commands.pipe.as_mut().unwrap();
            if let Err(error) = pipe.write_all(format!("{command}\0").as_bytes()) {
                panic!("Chromium has ended, {error}: {}", self.errors());
            }
        }
        let answer = answer.recv_timeout(TIMEOUT);
        let mut answer = answer.unwrap_or_else(|error| panic!("no answer to {method}, {error}: {}", self.errors()));
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}")),
            None => Ok(answer["result"].take()),
        }
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.directory.path().join("errors")).unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It ends by itself, and its helpers with it, when the pipe is closed.
        self.commands.get_mut().unwrap_or_else(PoisonError::into_inner).pipe = None;
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        // It may have ended.
        let _ended = self.child.kill();
        drop(self.child.wait());
    }
}
