//! Responses to a client that gets no WebSocket: a status and a message in JSON.

use std::time::Duration;

use http::StatusCode;
use session_core::connection_limiter::ConnectionLimitExceeded;

/// The answer to somebody who is turned away before anything was read, as bytes.
pub(crate) fn limit_exceeded_response(exceeded: ConnectionLimitExceeded) -> Vec<u8> {
    plain_response(StatusCode::SERVICE_UNAVAILABLE, exceeded.message(), Some(exceeded.retry_after()))
}

/// An answer in words, as bytes, where hyper has no part in it.
pub(crate) fn plain_response(status: StatusCode, message: &'static str, retry_after: Option<Duration>) -> Vec<u8> {
    let body = Body { message }.encode();
    let retry_after = retry_after.map_or(String::new(), |after| format!("retry-after: {}\r\n", whole_seconds(after)));
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n{retry_after}content-length: {}\r\n\r\n{body}",
        body.len(),
    )
    .into_bytes()
}

/// Retry-After counts in whole seconds (RFC 9110 §10.2.3).
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[derive(serde::Serialize)]
pub(super) struct Body {
    pub(super) message: &'static str,
}

impl Body {
    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("a string always serialises")
    }
}
