//! The opening handshake of a WebSocket (RFC 6455 §4.1), and how a server's refusal is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_tungstenite::tungstenite::client::client_with_config;
use async_tungstenite::tungstenite::handshake::HandshakeError;
use async_tungstenite::tungstenite::handshake::client::Request;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{self, error::ProtocolError};
use async_tungstenite::{WebSocketStream, client_async_with_config};
use http::{HeaderMap, header};
use serde::Deserialize;
use smol::Timer;
use smol::future::or;
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::connect_error::shorten;
use super::stream::Stream;
use super::{ConnectError, Error, Url};

/// The longest head of an answer: much longer than any of this protocol.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Does the opening handshake.
pub(super) async fn upgrade(url: &Url, mut stream: Stream) -> Result<WebSocketStream<Stream>, Error> {
    /// Allocated as long as the connection lives. Messages are short.
    const READ_BUFFER_BYTES: usize = 2 * 1024;
    /// Much longer than any message of this protocol.
    const MAX_MESSAGE_BYTES: usize = 256 * 1024;

    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Sends every message at once.
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut answer = ResponseHead::default();
    let asking = HeadReader { stream: &mut stream, answer: &mut answer };
    let error = match client_async_with_config(url.uri(), asking, Some(config.read_buffer_size(0))).await {
        Ok((asked, _response)) => {
            drop(asked);
            let after_head = answer.after_head().to_vec();
            return Ok(WebSocketStream::from_partially_read(stream, after_head, Role::Client, Some(config)).await);
        }
        Err(error) => error,
    };
    let refusal = Refusal::new(&error, &answer);
    let body = read_body(&mut stream, answer.after_head().to_vec(), refusal.body_bytes()).await;
    Err(Error::handshake(url, refusal.with_body(&body)))
}

/// Why there is no WebSocket, as the head of the answer says it. The body may say more.
#[derive(Debug)]
pub(super) struct Refusal {
    reason: ConnectError,
    /// How much of the body to read.
    body: usize,
}

impl Refusal {
    fn new(error: &tungstenite::Error, answer: &ResponseHead) -> Self {
        const MAX_BODY_BYTES: usize = 4 * 1024;

        if let tungstenite::Error::Http(response) = error {
            let length = response.headers().get(header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(MAX_BODY_BYTES);
            let retry_after = parse_retry_after(response.headers());
            let reason = ConnectError::Answered { status: response.status().as_u16(), message: None, retry_after };
            Self { reason, body: length.min(MAX_BODY_BYTES) }
        } else {
            Self { reason: answer.connect_error(error), body: 0 }
        }
    }

    /// From the head of an answer to this request, or from what came instead of one. `None` if it opens the WebSocket.
    pub(super) fn from_head(request: Request, head: &[u8]) -> Option<Self> {
        let mut answer = ResponseHead::default();
        answer.push(head);
        answer.end();
        let error = match client_with_config(request, HeadOnly(head), None) {
            Ok(_) => return None,
            Err(HandshakeError::Failure(error)) => error,
            // Cannot be: nothing blocks here.
            Err(HandshakeError::Interrupted(_)) => ProtocolError::HandshakeIncomplete.into(),
        };
        Some(Self::new(&error, &answer))
    }

    /// How much of the body is worth reading, in bytes.
    pub(super) fn body_bytes(&self) -> usize {
        self.body
    }

    /// The reason, with the message of the body if that has one. A body that breaks off is no error.
    pub(super) fn with_body(self, body: &[u8]) -> ConnectError {
        let mut reason = self.reason;
        if let ConnectError::Answered { message, .. } = &mut reason {
            *message = parse_message(&body[..body.len().min(self.body)]);
        }
        reason
    }
}

/// A stream that ends after the head of an answer, and takes any request.
struct HeadOnly<'a>(&'a [u8]);

impl io::Read for HeadOnly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut self.0, buffer)
    }
}

impl io::Write for HeadOnly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The answer so far: its head, and what came with it.
#[derive(Default)]
struct ResponseHead {
    bytes: Vec<u8>,
    /// The length of the head, once it is complete.
    head: Option<usize>,
    /// How much of the head was passed on.
    passed: usize,
}

/// Reads only the head of the answer. Otherwise Tungstenite would keep what follows it, the first frames or the text of
/// a refusal, and the stream too.
struct HeadReader<'a> {
    stream: &'a mut Stream,
    answer: &'a mut ResponseHead,
}

impl ResponseHead {
    fn push(&mut self, bytes: &[u8]) {
        const END: &[u8] = b"\r\n\r\n";

        let begin = self.bytes.len().saturating_sub(END.len() - 1);
        self.bytes.extend_from_slice(bytes);
        self.head =
            self.bytes[begin..].windows(END.len()).position(|bytes| bytes == END).map(|at| begin + at + END.len());
        if self.head.is_none() && (self.bytes.first() != Some(&b'H') || self.bytes.len() > MAX_HEAD_BYTES) {
            self.end();
        }
    }

    /// Ends the head: the stream has ended, or this is not HTTP.
    fn end(&mut self) {
        self.head = Some(self.bytes.len());
    }

    fn after_head(&self) -> &[u8] {
        &self.bytes[self.head.unwrap_or(self.bytes.len())..]
    }

    /// Why the answer opens no WebSocket.
    fn connect_error(&self, error: &tungstenite::Error) -> ConnectError {
        /// The first bytes of a TLS alert (RFC 8446 §5.1).
        const TLS_ALERT: [u8; 2] = [21, 3];

        if self.bytes.starts_with(&TLS_ALERT) {
            ConnectError::SpeaksTls
        } else if let tungstenite::Error::Io(error) = error {
            ConnectError::from_stream_error(error).unwrap_or_else(|| ConnectError::Protocol(error.to_string()))
        } else if let tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) = error {
            if self.bytes.is_empty() {
                ConnectError::HungUp
            } else {
                ConnectError::Protocol("its answer is too long, or breaks off".into())
            }
        } else {
            ConnectError::Protocol(error.to_string())
        }
    }
}

impl AsyncRead for HeadReader<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { stream, answer } = self.get_mut();
        let head = loop {
            if let Some(head) = answer.head {
                break &answer.bytes[answer.passed..head];
            }
            let mut read = [0; 1024];
            match ready!(Pin::new(&mut **stream).poll_read(cx, &mut read))? {
                0 => answer.end(),
                bytes => answer.push(&read[..bytes]),
            }
        };
        let passed = head.len().min(buffer.len());
        buffer[..passed].copy_from_slice(&head[..passed]);
        answer.passed += passed;
        Poll::Ready(Ok(passed))
    }
}

impl AsyncWrite for HeadReader<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_close(cx)
    }
}

/// How long to wait for the body of a refusal.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the rest of the body, as much as arrives in time. The status alone is enough for an error.
async fn read_body(stream: &mut Stream, mut body: Vec<u8>, length: usize) -> Vec<u8> {
    let whole = async {
        let mut read = [0; 1024];
        while body.len() < length {
            match stream.read(&mut read).await {
                Ok(0) | Err(_) => break,
                Ok(bytes) => body.extend_from_slice(&read[..bytes]),
            }
        }
    };
    let late = async {
        Timer::after(BODY_TIMEOUT).await;
    };
    or(whole, late).await;
    body
}

fn parse_message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        message: String,
    }

    serde_json::from_slice(body).ok().map(|Body { message }| shorten(&message))
}

fn parse_retry_after(headers: &HeaderMap) -> Option<Duration> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(DAY))
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, Options};
    use super::*;
    use crate::client::testing::fake_server::{FakeServer, with_server};
    use session_core::protocol::ServerMessage;
    use smol::future::zip;

    /// The error from a server that answers with these pieces.
    fn connect_error(pieces: &[&str]) -> ConnectError {
        let mut found = None;
        with_server(async |listener: FakeServer| {
            let url = listener.url();
            let (opened, ()) = zip(Connection::open(&url), listener.answer(pieces)).await;
            found = Some(connect_error_of(opened.expect_err("no WebSocket")));
        });
        found.expect("an answer")
    }

    fn connect_error_of(error: Error) -> ConnectError {
        let Error::Handshake { reason, .. } = error else { panic!("another error: {error}") };
        *reason
    }

    #[test]
    fn refusal_has_message_and_retry_after() {
        let body = r#"{"message":"Full ü"}"#;
        let head = format!("HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: {}\r\n\r\n", body.len());
        let whole = format!("{head}{body}, and more");
        let (message, retry_after) = (Some("Full ü".into()), Some(Duration::from_secs(7)));
        let expected = ConnectError::Answered { status: 503, message, retry_after };
        assert_eq!(connect_error(&[&whole]), expected);
        assert_eq!(connect_error(&[&head, body]), expected);
        // Split within the end of the head, and within the body.
        assert_eq!(
            connect_error(&[
                &whole[..9],
                &whole[9..head.len() - 2],
                &whole[head.len() - 2..head.len() + 9],
                &whole[head.len() + 9..]
            ]),
            expected
        );
    }

    #[test]
    fn refusal_without_message_has_its_status() {
        for (head, body) in [
            ("Content-Length: 0\r\n", ""),
            ("", ""),
            ("", "<html>"),
            ("", r#"{"message":7}"#),
            ("Content-Length: 99\r\n", r#"{"mess"#),
            ("Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n", ""),
            ("Retry-After: -1\r\n", ""),
        ] {
            let head = format!("HTTP/1.1 408 No\r\n{head}\r\n");
            let expected = ConnectError::Answered { status: 408, message: None, retry_after: None };
            assert_eq!(connect_error(&[&head, body]), expected, "{head}{body}");
        }
    }

    #[test]
    fn refusal_message_and_retry_are_bounded() {
        let body = format!(r#"{{"message":"\u001b[2J{}"}}"#, "a".repeat(1000));
        let head = "HTTP/1.1 403 No\r\nRetry-After: 18446744073709551615\r\n\r\n";
        let ConnectError::Answered { message, retry_after, .. } = connect_error(&[head, &body]) else {
            panic!("no answer")
        };
        assert_eq!(message, Some(format!("[2J{}…", "a".repeat(196))));
        assert_eq!(retry_after, Some(Duration::from_secs(24 * 60 * 60)));
        let long = format!(r#"{{"message":"a","more":"{}"}}"#, "b".repeat(4096));
        let expected = ConnectError::Answered { status: 404, message: None, retry_after: None };
        assert_eq!(connect_error(&["HTTP/1.1 404 No\r\n\r\n", &long]), expected);
    }

    #[test]
    fn missing_body_is_not_awaited_for_long() {
        with_server(async |listener: FakeServer| {
            let url = listener.url();
            let server = async {
                let mut stream = listener.accept_stream().await.expect("a connection");
                let head = b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n";
                smol::io::AsyncWriteExt::write_all(&mut stream, head).await.expect("a reader");
                std::future::pending::<()>().await;
                Ok(stream)
            };
            let opened =
                or(async { Connection::open(&url).await.map(|_| ()) }, async { server.await.map(|_: Box<_>| ()) });
            let expected = ConnectError::Answered { status: 503, message: None, retry_after: None };
            assert_eq!(connect_error_of(opened.await.expect_err("no WebSocket")), expected);
        });
    }

    #[test]
    fn hangup_before_the_answer_is_reported() {
        assert_eq!(connect_error(&[]), ConnectError::HungUp);
        for reset in [true, false] {
            with_server(async |listener: FakeServer| {
                let url = listener.url();
                let server = async {
                    let stream = listener.accept_tcp().await;
                    if reset {
                        let now = Some(Duration::ZERO);
                        socket2::SockRef::from(&stream).set_linger(now).expect("a TCP socket");
                    }
                };
                let (opened, ()) = zip(Connection::open(&url), server).await;
                let error = opened.expect_err("no WebSocket").to_string();
                let expected = format!(
                    "no WebSocket at {url}: it hung up before it answered; try again in a while, or check whether it \
                     is to be ws:// or wss://"
                );
                assert_eq!(error, expected);
            });
        }
    }

    #[test]
    fn answer_that_is_not_http_is_reported() {
        let text = |pieces: &[&str]| connect_error(pieces).to_string();
        assert_eq!(
            text(&["SSH-2.0-server\r\n"]),
            "WebSocket protocol error: httparse error: invalid HTTP version; check that the URL is that of a session server"
        );
        let broken = "its answer is too long, or breaks off; check that the URL is that of a session server";
        assert_eq!(text(&["HTTP/1.1 101 Sw"]), broken);
        assert_eq!(text(&["HTTP/1.1 101 Switching Protocols\r\nA: ", &"b".repeat(100_000)]), broken);
        assert!(text(&["HTTP/1.1 101 Switching Protocols\r\n\r\n"]).contains("No \"Upgrade: websocket\" header"));
    }

    #[test]
    fn frames_after_the_answer_are_kept() {
        with_server(async |listener: FakeServer| {
            let url = listener.url();
            let server = async {
                let mut connection = listener.accept().await;
                connection.send(&ServerMessage::Hello).await;
                connection.send_text("more").await;
                connection.close(4402, "Token has expired").await;
                connection.receive().await;
            };
            let client = async {
                let mut connection = Connection::open_with(&url, &Options::default()).await.expect("a greeting");
                assert_eq!(connection.next_event().await.ok(), Some(super::super::Event::Unknown("more".into())));
                let closed = connection.next_event().await;
                assert!(matches!(closed, Ok(super::super::Event::Closed { code: 4402, .. })), "{closed:?}");
            };
            zip(client, server).await;
        });
    }
}
