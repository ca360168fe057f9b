//! Responses to a client that gets no WebSocket: a status, and a message in JSON.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use session_core::connection_limiter::ConnectionLimitExceeded;

/// A response that ends its connection. Hyper sends it where hyper has read the request; elsewhere it is sent as bytes.
pub(crate) struct PlainResponse {
    status: StatusCode,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
}

/// The body of every response.
#[derive(serde::Serialize)]
struct Body<'a> {
    message: &'a str,
}

impl PlainResponse {
    /// A response with this status and message.
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The response to a connection that exceeds a limit: 503, and when to retry.
    pub(crate) fn limit_exceeded(exceeded: ConnectionLimitExceeded) -> Self {
        let retry_after = Some(exceeded.retry_after());
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: exceeded.message().into(), retry_after }
    }

    /// The whole response as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = self.body();
        let headers = self.headers().chain([(header::CONTENT_LENGTH, body.len().into())]);
        let mut bytes = head_to_bytes(self.status, headers);
        bytes.extend_from_slice(body.as_bytes());
        bytes
    }

    /// The response for hyper, which adds the headers `content-length` and `date`.
    pub(super) fn to_http(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body()));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers());
        response
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        // `connection: close` stands here, not in hyper's settings: hyper would also send it to a connection that upgrades.
        let fixed = [(header::CONTENT_TYPE, "application/json"), (header::CONNECTION, "close")];
        let retry_after = self.retry_after.map(|after| (header::RETRY_AFTER, whole_seconds(after).into()));
        fixed.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).chain(retry_after)
    }

    fn body(&self) -> String {
        serde_json::to_string(&Body { message: &self.message }).expect("a string always serialises")
    }
}

/// The head of a response as bytes.
pub(super) fn head_to_bytes(
    status: StatusCode,
    headers: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[u8]>)>,
) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in headers {
        for part in [name.as_ref().as_bytes(), b": ", value.as_ref(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Rounded up: `Retry-After` counts whole seconds (RFC 9110 §10.2.3).
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_one_complete_http_response() {
        let response = PlainResponse {
            retry_after: Some(Duration::from_millis(1001)),
            ..PlainResponse::new(StatusCode::SERVICE_UNAVAILABLE, "Full")
        };
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
            retry-after: 2\r\ncontent-length: 18\r\n\r\n{\"message\":\"Full\"}";
        assert_eq!(String::from_utf8(response.to_bytes()).unwrap(), text);
    }
}
