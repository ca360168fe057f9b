//! An identity provider that publishes keys over HTTP or HTTPS, and fails in the ways in which providers fail.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the provider does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Answers with this status line, these further headers and this body.
    With {
        /// Such as `200 OK`.
        status: &'static str,
        /// Each without its line break.
        headers: Vec<String>,
        /// Its length is sent with it.
        body: String,
    },
    /// Closes the connection.
    HangUp,
    /// Reads the request and never answers.
    Silence,
    /// Answers with one byte at a time, without end.
    Drip,
}

impl Answer {
    /// A good answer.
    #[must_use]
    pub fn json(body: impl Into<String>) -> Self {
        Self::With { status: "200 OK", headers: vec!["content-type: application/json".into()], body: body.into() }
    }

    /// As [`Answer::json`], with one more header.
    #[must_use]
    pub fn json_with(header: &str, body: impl Into<String>) -> Self {
        Self::With { status: "200 OK", headers: vec![header.into()], body: body.into() }
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(to: &str) -> Self {
        Self::With { status: "302 Found", headers: vec![format!("location: {to}")], body: String::new() }
    }
}

/// A provider on a port of its own. Stopped when dropped.
pub struct TestProvider {
    /// Where it listens.
    pub address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    answers: BTreeMap<String, Answer>,
    requests: BTreeMap<String, usize>,
    is_stopped: bool,
}

impl TestProvider {
    /// A provider without TLS.
    #[must_use]
    pub fn start() -> Self {
        Self::with(None)
    }

    /// A provider with TLS.
    #[must_use]
    pub fn with_tls(config: Arc<ServerConfig>) -> Self {
        Self::with(Some(config))
    }

    fn with(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (shared, scheme) = (Arc::<Mutex<Shared>>::default(), if tls.is_some() { "https" } else { "http" });
        let of = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if lock(&of).is_stopped {
                    return;
                }
                let (shared, tls) = (Arc::clone(&of), tls.clone());
                thread::spawn(move || {
                    // A client may leave, or not trust the certificate.
                    let _ended = match tls {
                        None => serve(stream, &shared),
                        Some(config) => ServerConnection::new(config)
                            .map_err(io::Error::other)
                            .and_then(|connection| serve(StreamOwned::new(connection, stream), &shared)),
                    };
                });
            }
        });
        Self { address, scheme, shared, thread: Some(thread) }
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Changes what a path answers with. Paths without an answer do not exist.
    pub fn set(&self, path: &str, answer: Answer) {
        lock(&self.shared).answers.insert(path.into(), answer);
    }

    /// The number of requests for a path so far.
    #[must_use]
    pub fn requests(&self, path: &str) -> usize {
        lock(&self.shared).requests.get(path).copied().unwrap_or_default()
    }
}

impl Drop for TestProvider {
    fn drop(&mut self) {
        lock(&self.shared).is_stopped = true;
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no thread panics with it")
}

/// Answers one request.
fn serve(mut stream: impl Read + Write, shared: &Mutex<Shared>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = {
        let mut shared = lock(shared);
        *shared.requests.entry(path.clone()).or_default() += 1;
        shared.answers.get(&path).cloned()
    };
    let not_found = Answer::With { status: "404 Not Found", headers: Vec::new(), body: "no such page".into() };
    match answer.unwrap_or(not_found) {
        Answer::With { status, headers, body } => {
            let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())?;
            stream.flush()
        }
        Answer::HangUp => Ok(()),
        Answer::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")?;
            while !lock(shared).is_stopped {
                stream.write_all(b" ")?;
                stream.flush()?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        Answer::Silence => {
            while !lock(shared).is_stopped {
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
    }
}
