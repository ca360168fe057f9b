//! The one HTTP request of a connection: the opening handshake of a WebSocket (RFC 6455 §4.2).
//!
//! Every other request gets a plain response. Hyper itself answers what is not HTTP (400) or too large (431), with a
//! bare status.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Pending, Ready, pending, poll_fn, ready};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use futures_util::future::Either;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use smol::future::FutureExt as _;
use smol::io::{AsyncRead, AsyncWrite};
use smol_hyper::rt::FuturesIo;

use crate::net::close::close_after_response;
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::forwarded::{ForwardedClient, X_FORWARDED_FOR, X_REAL_IP};
use crate::net::origins::{RequestTarget, Scheme};
use crate::net::peer::Peer;
use crate::net::plain_response::{PlainResponse, head_to_bytes};
use crate::net::settings::ConnectionSettings;
use crate::net::subprotocols::Selection;
use crate::net::transport::log_unexpected_proxy_header;
use crate::runtime::events::log_limited;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use session_core::protocol::SUBPROTOCOL;

/// The maximum number of header fields in a request. With more the response is 431.
const MAX_HEADERS: usize = 64;
/// How much of a header's value is logged, and sent back. The client chooses how long the value is.
const MAX_QUOTED_BYTES: usize = 100;

/// Of requests that are not served as their clients wish.
static LOG: LogRateLimiter = LogRateLimiter::new();

/// How one HTTP request ended.
#[derive(Debug)]
pub enum UpgradeOutcome<S> {
    /// The stream now speaks WebSocket.
    Upgraded {
        /// The stream.
        stream: S,
        /// Bytes of the stream that were read together with the request.
        read: Vec<u8>,
        /// The response, which is not sent yet.
        response: Vec<u8>,
        /// Whether [`SUBPROTOCOL`] was selected.
        is_v1: bool,
    },
    /// The request got another response, or did not come in time. The connection is over.
    Answered,
}

/// Serves one request from `peer`, which may be a proxy. If `timeout` is ready before the whole request has come, the
/// response is 408. The caller may drop this future at any time.
pub async fn serve_request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: Peer,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
    timeout: impl Future<Output = ()>,
) -> UpgradeOutcome<S> {
    let request = Mutex::new(RequestState { permit, upgrade: None });
    let service = UpgradeService { peer, settings, request: &request };
    let mut connection = http1::Builder::new()
        .max_buf_size(settings.max_header_bytes)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        // Otherwise hyper checks between request and response whether the peer has closed. That takes two system calls,
        // and the next read or write finds it out anyway.
        .half_close(true)
        .serve_connection(FuturesIo::new(stream), service);
    let serve = poll_fn(|cx| {
        let served = connection.poll_without_shutdown(cx);
        let upgrade = lock(&request).upgrade.take();
        upgrade.map_or_else(|| served.map(Served::Answered), |upgrade| Poll::Ready(Served::Upgraded(upgrade)))
    });
    let timeout = async {
        timeout.await;
        Served::TimedOut
    };
    let result = serve.or(timeout).await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match result {
        Served::Upgraded(Upgrade { response, is_v1 }) => {
            // The read buffer is copied because hyper's is eight times larger than what the WebSocket keeps.
            return UpgradeOutcome::Upgraded { stream, read: parts.read_buf.to_vec(), response, is_v1 };
        }
        Served::Answered(served) => {
            let is_no_http = served.is_err_and(|error| error.is_parse() && !error.is_parse_too_large());
            if is_no_http
                && !settings.proxy_protocol
                && settings.tls.is_none()
                && settings.trusted_proxies.is_trusted(peer.socket)
            {
                log_unexpected_proxy_header(&peer);
            }
            close_after_response(&mut stream, b"").await;
        }
        Served::TimedOut => {
            let response = PlainResponse::new(StatusCode::REQUEST_TIMEOUT, "The request did not come in time");
            close_after_response(&mut stream, &response.to_bytes()).await;
        }
    }
    UpgradeOutcome::Answered
}

/// How the service of a request ended.
enum Served {
    Upgraded(Upgrade),
    /// Hyper has sent another response, or the client has gone.
    Answered(hyper::Result<()>),
    TimedOut,
}

/// A handshake that was accepted.
struct Upgrade {
    response: Vec<u8>,
    is_v1: bool,
}

/// Serves the one request of a connection.
struct UpgradeService<'a, 'p> {
    peer: Peer,
    settings: &'a ConnectionSettings,
    request: &'a Mutex<RequestState<'p>>,
}

struct RequestState<'p> {
    permit: &'p mut ConnectionPermit,
    upgrade: Option<Upgrade>,
}

fn lock<'a, 'p>(request: &'a Mutex<RequestState<'p>>) -> MutexGuard<'a, RequestState<'p>> {
    request.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service<Request<Incoming>> for UpgradeService<'_, '_> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    /// Without end for a handshake that is accepted: hyper would send its response alone.
    type Future = Either<Ready<Result<Self::Response, Infallible>>, Pending<Result<Self::Response, Infallible>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut state = lock(self.request);
        let headers = request.headers();
        let client = self.settings.forwarded_header.client(&self.settings.trusted_proxies, &self.peer, headers);
        let mut response = match state.permit.identify(client.address) {
            Ok(()) => {
                let (method, path) = (request.method(), request.uri().path());
                let target = request_target(self.settings, &self.peer, &client, headers);
                let response = response_for(self.settings, &target, method, path, request.version(), headers);
                match response.status() {
                    StatusCode::FORBIDDEN => log_refused_header("Origin", single_header(headers, header::ORIGIN)),
                    StatusCode::MISDIRECTED_REQUEST => log_refused_header("Host", target.host),
                    StatusCode::SWITCHING_PROTOCOLS => log_unselected_subprotocol(self.settings, &client, headers),
                    _ => {}
                }
                response
            }
            Err(exceeded) => PlainResponse::limit_exceeded(exceeded).to_http(),
        };
        // The rest of a body would be read as WebSocket frames.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !request.body().is_end_stream() {
            response = message_response(StatusCode::BAD_REQUEST, "A handshake has no body");
        }
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Either::Left(ready(Ok(response)));
        }
        let is_v1 = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL).is_some_and(|name| name == SUBPROTOCOL);
        state.upgrade = Some(Upgrade { response: head_to_bytes(response.status(), response.headers()), is_v1 });
        Either::Right(pending())
    }
}

/// Logs a request that was refused because of this header.
fn log_refused_header(header: &'static str, value: Option<&[u8]>) {
    log_limited!(LOG, request_refused { header, value: value.map(quoted).as_deref() });
}

/// Logs a client that offers only subprotocols that the server may not select.
fn log_unselected_subprotocol(settings: &ConnectionSettings, client: &ForwardedClient, headers: &HeaderMap) {
    let offered = offered_subprotocols(headers);
    if settings.subprotocols.select(&offered) == Selection::NoneMatches {
        log_limited!(
            LOG,
            subprotocol_not_selected {
                client_address: display(client.address),
                offered: &*quoted(shown_subprotocols(&offered).as_bytes()),
            }
        );
    }
}

/// The names of these lines, for the log. A page can set no other header, so some put a token here. It must not be logged: of
/// a long name, only its length is shown.
fn shown_subprotocols(lines: &[&str]) -> String {
    /// Longer than the names in use, shorter than a token that cannot be guessed.
    const MAX_NAME_BYTES: usize = 24;

    let names = lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let shown = names.map(|name| match name.len() {
        ..=MAX_NAME_BYTES => name.to_owned(),
        bytes => format!("({bytes} bytes)"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The beginning of a value that a client has chosen.
fn quoted(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&value[..value.len().min(MAX_QUOTED_BYTES)])
}

/// How the client reached the server.
fn request_target<'a>(
    settings: &'a ConnectionSettings,
    peer: &Peer,
    client: &ForwardedClient,
    headers: &'a HeaderMap,
) -> RequestTarget<'a> {
    let own_scheme = if settings.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let is_forwarded = client.address != peer.socket || client.scheme.is_some() || is_of_proxy(headers);
    RequestTarget {
        host: single_header(headers, header::HOST),
        scheme: client.scheme.unwrap_or(own_scheme),
        local: (!is_forwarded).then_some(peer.local),
        hosts: &settings.hosts,
    }
}

/// Whether a proxy has written one of these headers, trusted or not, or a program like one. No page can. A header may also
/// hide the client (`Forwarded: for=_hidden`).
fn is_of_proxy(headers: &HeaderMap) -> bool {
    [X_FORWARDED_FOR, X_REAL_IP, header::FORWARDED, header::VIA].iter().any(|name| headers.contains_key(name))
}

/// The response to a request: 101 for a valid handshake, a message for anything else.
fn response_for(
    settings: &ConnectionSettings,
    target: &RequestTarget<'_>,
    method: &Method,
    path: &str,
    version: Version,
    headers: &HeaderMap,
) -> Response<Full<Bytes>> {
    let has_web_socket = settings.paths.contains(path);
    // A health check is answered at `/` in any case.
    if !has_web_socket && path != "/" {
        return not_found(settings);
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
        return match settings.readiness.refusal() {
            None => message_response(StatusCode::OK, "Web socket is needed to talk to this server"),
            Some(refusal) => message_response(StatusCode::SERVICE_UNAVAILABLE, refusal),
        };
    }
    if !has_web_socket {
        return not_found(settings);
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
    if !settings.hosts.allows(target.host) {
        return message_response(
            StatusCode::MISDIRECTED_REQUEST,
            "The name in the header Host is not one of this server, allowed_hosts does not list it",
        );
    }
    let origin = single_header(headers, header::ORIGIN);
    if !settings.origins.allows(origin, target) {
        return message_response(StatusCode::FORBIDDEN, refused_origin(origin.unwrap_or_default()));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_nonce(key.as_bytes()) => {
            let selection = settings.subprotocols.select(&offered_subprotocols(headers));
            switching_protocols(key.as_bytes(), selection)
        }
        (Some(_) | None, _) => message_response(
            StatusCode::BAD_REQUEST,
            "The header Sec-WebSocket-Key must be given once, 16 bytes in base64",
        ),
    }
}

fn switching_protocols(key: &[u8], selection: Selection<'_>) -> Response<Full<Bytes>> {
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is a valid header value");
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    match selection {
        Selection::NoneOffered | Selection::NoneMatches => {}
        Selection::Selected(name) => {
            let name = HeaderValue::from_str(name).expect("a token is a valid header value");
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
        }
    }
    response
}

fn not_found(settings: &ConnectionSettings) -> Response<Full<Bytes>> {
    let message = match settings.paths.first() {
        Some(path) => format!("There is nothing here, the web socket is at {path}"),
        None => "There is nothing here".into(),
    };
    message_response(StatusCode::NOT_FOUND, message)
}

/// What a program, or the developer of a page, is told whose origin is refused.
fn refused_origin(origin: &[u8]) -> Cow<'static, str> {
    if origin == SEVERAL_LINES {
        return "The header Origin may be given only once".into();
    }
    let (origin, rest) = (quoted(origin), if origin.len() > MAX_QUOTED_BYTES { "…" } else { "" });
    format!("Pages of the origin '{origin}{rest}' may not connect, allowed_origins does not list it").into()
}

fn message_response(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Response<Full<Bytes>> {
    PlainResponse::new(status, message).to_http()
}

/// The lines with the subprotocols that a client offers.
fn offered_subprotocols(headers: &HeaderMap) -> Vec<&str> {
    header_lines(headers, header::SEC_WEBSOCKET_PROTOCOL).collect()
}

/// The lines of a header that are text.
fn header_lines(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok())
}

/// What stands for several lines of a header that may have only one. No header accepted here has this as a valid value.
const SEVERAL_LINES: &[u8] = b",";

/// The only line of a header, or [`SEVERAL_LINES`].
fn single_header(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(_), Some(_)) => Some(SEVERAL_LINES),
        (line, _) => line.map(HeaderValue::as_bytes),
    }
}

/// Whether a comma-separated header contains the token. Case does not matter (RFC 9110 §5.6.1, §7.6.1).
fn lists_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let mut tokens = header_lines(headers, name).flat_map(|line| line.split(','));
    tokens.any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

/// Whether this is 16 bytes in base64: 22 digits and two paddings. The last digit has four unused bits.
fn is_nonce(key: &[u8]) -> bool {
    let digits = key.strip_suffix(b"==").unwrap_or_default();
    digits.len() == 22 && digits.iter().all(|digit| digit.is_ascii_alphanumeric() || b"+/".contains(digit))
}

#[cfg(test)]
mod tests;
