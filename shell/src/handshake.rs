//! The HTTP edge: the opening handshake of a WebSocket (RFC 6455 §4.2), and an answer to everything else: in words, or
//! with the bare status that hyper gives to what is not HTTP (400) or too large (431).

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use smol::io::{AsyncRead as _, AsyncWrite as _};
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;

use crate::fair::Fair;

/// The most bytes of a request's head. Beyond it the answer is 431.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The most header fields of a request. Beyond it the answer is 431.
const MAX_HEADERS: usize = 64;

/// How one HTTP request ended.
pub(crate) enum Handshake {
    /// The stream speaks WebSocket now; `read` are bytes of it that came with the request.
    Upgraded { stream: Fair<TcpStream>, read: Vec<u8> },
    /// The request was answered and the connection is over.
    Answered,
}

/// Serves one request. Takes as long as the peer likes: the caller bounds it, and may drop it at any time.
pub(crate) async fn shake_hands(stream: Fair<TcpStream>) -> Handshake {
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        // Or else hyper looks, between the request and its answer, whether the peer is still there: a system call, and
        // another to be told. That is found out soon enough.
        .half_close(true)
        .serve_connection(FuturesIo::new(stream), Edge { upgraded: AtomicBool::new(false) });
    let served = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if served.is_ok() && parts.service.upgraded.into_inner() {
        // All of the answer has left hyper's buffer: it is shorter than what a fresh socket takes at once.
        // Copied: the buffer itself is eight times larger than what the WebSocket keeps for as long as it lives.
        return Handshake::Upgraded { stream, read: parts.read_buf.to_vec() };
    }
    // What is unread is thrown away: to close a socket with unread data resets it, and takes the answer with it.
    drop(poll_fn(|cx| poll_discard(&mut stream, cx)).await);
    Handshake::Answered
}

fn poll_discard(stream: &mut Fair<TcpStream>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
    ready!(Pin::new(&mut *stream).poll_close(cx))?;
    let mut unread = [0; 4096];
    while ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread))? > 0 {}
    Poll::Ready(Ok(()))
}

struct Edge {
    upgraded: AtomicBool,
}

impl Service<Request<Incoming>> for Edge {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut response = answer(request.method(), request.uri().path(), request.version(), request.headers());
        // Its end would lie somewhere in the stream that is to be WebSocket frames.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !request.body().is_end_stream() {
            response = words(StatusCode::BAD_REQUEST, "A handshake has no body");
        }
        self.upgraded.store(response.status() == StatusCode::SWITCHING_PROTOCOLS, Ordering::Relaxed);
        ready(Ok(response))
    }
}

/// What a request gets: 101 for a good handshake, and words for anything else.
fn answer(method: &Method, path: &str, version: Version, headers: &HeaderMap) -> Response<Full<Bytes>> {
    if path != "/" {
        return words(StatusCode::NOT_FOUND, "There is nothing here, the web socket is at /");
    }
    if method != Method::GET {
        let mut response = words(StatusCode::METHOD_NOT_ALLOWED, "Only GET is allowed");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    if !lists(headers, header::UPGRADE, "websocket") {
        return words(StatusCode::OK, "Web socket is needed to talk to this server");
    }
    if version != Version::HTTP_11 {
        return words(StatusCode::BAD_REQUEST, "A web socket needs HTTP/1.1");
    }
    if !lists(headers, header::CONNECTION, "upgrade") {
        return words(StatusCode::BAD_REQUEST, "The header Connection: Upgrade is missing");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = words(StatusCode::UPGRADE_REQUIRED, "Only version 13 of the web socket protocol is spoken");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_nonce(key.as_bytes()) => switch(key.as_bytes()),
        (Some(_) | None, _) => {
            words(StatusCode::BAD_REQUEST, "The header Sec-WebSocket-Key must be given once, 16 bytes in base64")
        }
    }
}

fn switch(key: &[u8]) -> Response<Full<Bytes>> {
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is a valid header value");
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn words(status: StatusCode, message: &'static str) -> Response<Full<Bytes>> {
    #[derive(serde::Serialize)]
    struct Body {
        message: &'static str,
    }

    let body = serde_json::to_string(&Body { message }).expect("a string always serialises");
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // One request per connection. Not as a setting of hyper: then it would also say so of a connection that upgrades.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whether a comma-separated header has the token, in any case (RFC 9110 §5.6.1, §7.6.1).
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name);
    let mut tokens = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    tokens.any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

/// Whether this is 16 bytes in base64: 22 digits, of which the last has four bits to spare, and two paddings.
fn is_nonce(key: &[u8]) -> bool {
    let digits = key.strip_suffix(b"==").unwrap_or_default();
    digits.len() == 22 && digits.iter().all(|digit| digit.is_ascii_alphanumeric() || b"+/".contains(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn ask(method: &Method, path: &str, headers: &[(&'static str, &str)]) -> Response<Full<Bytes>> {
        let headers = headers
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value")))
            .collect();
        answer(method, path, Version::HTTP_11, &headers)
    }

    #[test]
    fn a_good_handshake_switches_with_the_accept_key_of_the_rfc() {
        let response = ask(&Method::GET, "/", &GOOD);
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn everything_else_is_told_what_is_wrong() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = GOOD.to_vec();
            headers.retain(|&(other, _)| other != name);
            if !value.is_empty() {
                headers.push((name, value));
            }
            ask(&Method::GET, "/", &headers).status().as_u16()
        };
        assert_eq!(ask(&Method::GET, "/", &[]).status(), 200);
        assert_eq!(ask(&Method::GET, "/x", &GOOD).status(), 404);
        assert_eq!(ask(&Method::POST, "/", &GOOD).status(), 405);
        assert_eq!(with("connection", "close"), 400);
        assert_eq!(with("upgrade", "h2c"), 200);
        assert_eq!(with("sec-websocket-version", "8"), 426);
        assert_eq!(with("sec-websocket-version", ""), 426);
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ===", "dGhlIHNhbXBsZSBub25j*Q=="] {
            assert_eq!(with("sec-websocket-key", key), 400, "{key:?}");
        }
        assert_eq!(answer(&Method::GET, "/", Version::HTTP_10, ask(&Method::GET, "/", &[]).headers()).status(), 200);
    }
}
