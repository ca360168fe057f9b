//! The HTTP edge: the opening handshake of a WebSocket (RFC 6455 §4.2), and an answer to everything else: in words, or
//! with the bare status that hyper gives to what is not HTTP (400) or too large (431).

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use session_core::connection_limiter::ConnectionLimitExceeded;
use smol::future::FutureExt as _;
use smol::io::{AsyncRead, AsyncWrite};
use smol_hyper::rt::FuturesIo;

use crate::net::close::close_after_response;
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::plain_response::{Body, plain_response, whole_seconds};
use crate::net::settings::ConnectionSettings;
use crate::runtime::log::LogRateLimiter;

/// The most header fields of a request. Beyond it the answer is 431.
const MAX_HEADERS: usize = 64;
/// Where proxies say for whom they ask.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How one HTTP request ended.
#[derive(Debug)]
pub enum UpgradeOutcome<S> {
    /// The stream speaks WebSocket now.
    Upgraded {
        /// The stream.
        stream: S,
        /// Bytes of it that came with the request.
        read: Vec<u8>,
    },
    /// The request was answered, or did not come in time, and the connection is over.
    Answered,
}

/// Serves one request, from `peer` or from somebody behind it. Once `late` is ready a request that has not come whole is
/// answered 408; the caller may drop this at any time.
pub async fn serve_request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: IpAddr,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
    late: impl Future<Output = ()>,
) -> UpgradeOutcome<S> {
    let edge = UpgradeService { peer, settings, request: Mutex::new(RequestState { permit, is_upgraded: false }) };
    let mut connection = http1::Builder::new()
        .max_buf_size(settings.max_header_bytes)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        // Or else hyper looks, between the request and its answer, whether the peer is still there: a system call, and
        // another to be told. That is found out soon enough.
        .half_close(true)
        .serve_connection(FuturesIo::new(stream), edge);
    let served = async { Some(poll_fn(|cx| connection.poll_without_shutdown(cx)).await) };
    let late = async {
        late.await;
        None
    };
    let served = served.or(late).await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    let is_upgraded = parts.service.request.into_inner().unwrap_or_else(PoisonError::into_inner).is_upgraded;
    match served {
        Some(Ok(())) if is_upgraded => {
            // All of the answer has left hyper's buffer: it is shorter than what a fresh socket takes at once.
            // Copied: the buffer itself is eight times larger than what the WebSocket keeps for as long as it lives.
            return UpgradeOutcome::Upgraded { stream, read: parts.read_buf.to_vec() };
        }
        Some(_) => close_after_response(&mut stream, b"").await,
        None => {
            let answer = plain_response(StatusCode::REQUEST_TIMEOUT, "The request did not come in time", None);
            close_after_response(&mut stream, &answer).await;
        }
    }
    UpgradeOutcome::Answered
}

/// Serves the one request of a connection.
struct UpgradeService<'a> {
    peer: IpAddr,
    settings: &'a ConnectionSettings,
    request: Mutex<RequestState<'a>>,
}

struct RequestState<'a> {
    permit: &'a mut ConnectionPermit,
    is_upgraded: bool,
}

impl Service<Request<Incoming>> for UpgradeService<'_> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut state = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is no text is no address either: to leave it out would move trust to what stands before it.
        let forwarded = request.headers().get_all(X_FORWARDED_FOR).iter();
        let forwarded: Vec<_> = forwarded.map(|line| line.to_str().unwrap_or_default()).collect();
        let client = self.settings.trusted_proxies.client_address(self.peer, &forwarded);
        let mut response = match state.permit.identify(client) {
            Ok(()) => {
                let headers = request.headers();
                let answer = answer(self.settings, request.method(), request.uri().path(), request.version(), headers);
                match answer.status() {
                    StatusCode::FORBIDDEN => log_refused_header("Origin", single_header(headers, header::ORIGIN)),
                    StatusCode::MISDIRECTED_REQUEST => log_refused_header("Host", single_header(headers, header::HOST)),
                    _ => {}
                }
                answer
            }
            Err(exceeded) => unavailable(exceeded),
        };
        // Its end would lie somewhere in the stream that is to be WebSocket frames.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !request.body().is_end_stream() {
            response = message_response(StatusCode::BAD_REQUEST, "A handshake has no body");
        }
        state.is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        ready(Ok(response))
    }
}

/// Logs a request that was refused because of this header, at most once a second in this process.
fn log_refused_header(header: &'static str, value: Option<&[u8]>) {
    /// The client chooses how long the value is.
    const MAX_LOGGED_BYTES: usize = 100;
    static LIMITER: LogRateLimiter = LogRateLimiter::new();

    if let Some(suppressed) = LIMITER.check() {
        let value = value.map(|value| String::from_utf8_lossy(&value[..value.len().min(MAX_LOGGED_BYTES)]));
        tracing::info!(header, value = value.as_deref(), suppressed, "refused a request that this server is not for");
    }
}

/// What a request gets: 101 for a good handshake, and words for anything else.
fn answer(
    settings: &ConnectionSettings,
    method: &Method,
    path: &str,
    version: Version,
    headers: &HeaderMap,
) -> Response<Full<Bytes>> {
    if path != "/" {
        return message_response(StatusCode::NOT_FOUND, "There is nothing here, the web socket is at /");
    }
    if method != Method::GET && method != Method::HEAD {
        let mut response = message_response(StatusCode::METHOD_NOT_ALLOWED, "Only GET is allowed, and HEAD");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // RFC 9112 §3.2.
    if version == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
        return message_response(StatusCode::BAD_REQUEST, "The header Host must be given once");
    }
    if method == Method::HEAD || !lists_token(headers, header::UPGRADE, "websocket") {
        return message_response(StatusCode::OK, "Web socket is needed to talk to this server");
    }
    if version != Version::HTTP_11 {
        return message_response(StatusCode::BAD_REQUEST, "A web socket needs HTTP/1.1");
    }
    if !lists_token(headers, header::CONNECTION, "upgrade") {
        return message_response(StatusCode::BAD_REQUEST, "The header Connection: Upgrade is missing");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response =
            message_response(StatusCode::UPGRADE_REQUIRED, "Only version 13 of the web socket protocol is spoken");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    if !settings.hosts.allows(single_header(headers, header::HOST)) {
        return message_response(StatusCode::MISDIRECTED_REQUEST, "This server does not go by that name (Host)");
    }
    if !settings.origins.allows(single_header(headers, header::ORIGIN)) {
        return message_response(StatusCode::FORBIDDEN, "Pages of that origin may not connect (Origin)");
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_nonce(key.as_bytes()) => switching_protocols(key.as_bytes()),
        (Some(_) | None, _) => message_response(
            StatusCode::BAD_REQUEST,
            "The header Sec-WebSocket-Key must be given once, 16 bytes in base64",
        ),
    }
}

fn switching_protocols(key: &[u8]) -> Response<Full<Bytes>> {
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is a valid header value");
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn unavailable(exceeded: ConnectionLimitExceeded) -> Response<Full<Bytes>> {
    let mut response = message_response(StatusCode::SERVICE_UNAVAILABLE, exceeded.message());
    response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(exceeded.retry_after()).into());
    response
}

fn message_response(status: StatusCode, message: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(Body { message }.encode()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // One request per connection. Not as a setting of hyper: then it would also say so of a connection that upgrades.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The lines of a header that are text.
fn header_lines(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok())
}

/// The only line of a header; one that is no valid value of it, if there are several.
fn single_header(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(_), Some(_)) => Some(b","),
        (line, _) => line.map(HeaderValue::as_bytes),
    }
}

/// Whether a comma-separated header has the token, in any case (RFC 9110 §5.6.1, §7.6.1).
fn lists_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let mut tokens = header_lines(headers, name).flat_map(|line| line.split(','));
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

    const GOOD: [(&str, &str); 5] = [
        ("host", "test"),
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
        answer(&ConnectionSettings::default(), method, path, Version::HTTP_11, &headers)
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
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(ask(&method, "/", &[("host", "test")]).status(), 200);
        }
        assert_eq!(ask(&Method::HEAD, "/", &GOOD).status(), 200, "only GET opens a web socket");
        assert_eq!(ask(&Method::GET, "/", &[]).status(), 400);
        assert_eq!(ask(&Method::GET, "/", &[("host", "test"), ("host", "test")]).status(), 400);
        assert_eq!(ask(&Method::GET, "/x", &GOOD).status(), 404);
        assert_eq!(ask(&Method::POST, "/", &GOOD).status(), 405);
        assert_eq!(with("connection", "close"), 400);
        assert_eq!(with("upgrade", "h2c"), 200);
        assert_eq!(with("sec-websocket-version", "8"), 426);
        assert_eq!(with("sec-websocket-version", ""), 426);
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ===", "dGhlIHNhbXBsZSBub25j*Q=="] {
            assert_eq!(with("sec-websocket-key", key), 400, "{key:?}");
        }
        assert_eq!(
            answer(
                &ConnectionSettings::default(),
                &Method::GET,
                "/",
                Version::HTTP_10,
                ask(&Method::GET, "/", &[]).headers()
            )
            .status(),
            200
        );
    }
}
