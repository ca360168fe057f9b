//! Admin requests as HTTP: methods, paths and bodies.
//!
//! | | |
//! |---|---|
//! | `GET /v1/users/{user}` | [`AdminRequest::Explain`] |
//! | `DELETE /v1/users/{user}` | [`AdminRequest::Forget`] |
//! | `PUT /v1/users/{user}/limit`, a [`UserPatch`] | [`AdminRequest::Limit`] |
//! | `DELETE /v1/users/{user}/limit` | [`AdminRequest::Limit`], back to the default |
//! | `DELETE /v1/users/{user}/sessions` | [`AdminRequest::End`], all |
//! | `DELETE /v1/users/{user}/sessions/{session}` | [`AdminRequest::End`], one |
//!
//! The user is percent-encoded in the path (RFC 3986 §2.1). The answer is a [`UserReport`](super::UserReport) in JSON, or
//! `{"error": message}`.

use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use session_core::{SessionId, UserId};

use super::error::{AdminError, AdminRequestError};
use super::request::{AdminRequest, DefaultWord, Override, UserPatch};

/// Reads a request.
pub(super) fn read(method: &Method, path: &str, body: &[u8]) -> Result<(UserId, AdminRequest), AdminRequestError> {
    let bad = |message: String| AdminRequestError::Bad(message);
    let rest = path.strip_prefix("/v1/users/").ok_or(AdminRequestError::NotFound)?;
    let parts: Vec<_> = rest.split('/').collect();
    let (user, place) = parts.split_first().ok_or(AdminRequestError::NotFound)?;
    let user = percent_decode_str(user).decode_utf8().map_err(|_| bad("the user is not UTF-8".into()))?;
    let user = UserId::parse(&user).map_err(|error| bad(error.message().into()))?;
    let request = match (place, method) {
        ([], &Method::GET) => AdminRequest::Explain,
        ([], &Method::DELETE) => AdminRequest::Forget,
        ([], _) => return Err(AdminRequestError::NotAllowed("GET, DELETE")),
        (["limit"], &Method::PUT) => {
            let patch = serde_json::from_slice(body).map_err(|error| bad(format!("the body is no change: {error}")))?;
            AdminRequest::Limit(patch)
        }
        (["limit"], &Method::DELETE) => AdminRequest::Limit(UserPatch {
            limit: Some(Override::Default(DefaultWord::Default)),
            ..UserPatch::default()
        }),
        (["limit"], _) => return Err(AdminRequestError::NotAllowed("PUT, DELETE")),
        (["sessions"], &Method::DELETE) => AdminRequest::End(None),
        (["sessions", id], &Method::DELETE) => {
            let session = SessionId::parse(id).ok_or_else(|| bad("a session's id has 32 hexadecimal digits".into()))?;
            AdminRequest::End(Some(session))
        }
        (["sessions"] | ["sessions", _], _) => return Err(AdminRequestError::NotAllowed("DELETE")),
        (_, _) => return Err(AdminRequestError::NotFound),
    };
    Ok((user, request))
}

/// Writes what [`read`] reads: method, path and body.
pub(super) fn write(user: &UserId, request: &AdminRequest) -> (Method, String, String) {
    let user = format!("/v1/users/{}", utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC));
    match request {
        AdminRequest::Explain => (Method::GET, user, String::new()),
        AdminRequest::Forget => (Method::DELETE, user, String::new()),
        AdminRequest::Limit(patch) => {
            let body = serde_json::to_string(patch).expect("words and numbers always serialise");
            (Method::PUT, format!("{user}/limit"), body)
        }
        AdminRequest::End(None) => (Method::DELETE, format!("{user}/sessions"), String::new()),
        AdminRequest::End(Some(session)) => (Method::DELETE, format!("{user}/sessions/{session}"), String::new()),
    }
}

/// The HTTP status for a request that was not carried out.
pub(super) fn status(error: &AdminError) -> StatusCode {
    match error {
        AdminError::BadRequest(_) => StatusCode::UNPROCESSABLE_ENTITY,
        AdminError::NoSuchSession => StatusCode::NOT_FOUND,
        AdminError::HoldsSlots(_) => StatusCode::CONFLICT,
        AdminError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        AdminError::NotEnforced(why) => status(why),
        AdminError::InDoubt => StatusCode::INTERNAL_SERVER_ERROR,
        AdminError::ReportUnavailable => StatusCode::ACCEPTED,
        AdminError::StoreTimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
    use session_core::NodeId;

    use super::super::request::{SlotCount, UnlimitedWord};
    use super::*;
    use session_core::ledger::WhenFull;

    #[test]
    fn request_is_read_as_written_for_any_user_id() {
        let session = NodeId::new(7).session(8);
        let limits = [
            UserPatch::default(),
            UserPatch {
                limit: Some(Override::To(SlotCount::Number(5))),
                enforce: true,
                dry_run: true,
                ..UserPatch::default()
            },
            UserPatch {
                limit: Some(Override::To(SlotCount::Unlimited(UnlimitedWord::Unlimited))),
                when_full: Some(Override::To(WhenFull::EvictOldest)),
                ..UserPatch::default()
            },
            UserPatch {
                limit: Some(Override::Default(DefaultWord::Default)),
                when_full: Some(Override::Default(DefaultWord::Default)),
                ..UserPatch::default()
            },
        ];
        let orders =
            [AdminRequest::Explain, AdminRequest::Forget, AdminRequest::End(None), AdminRequest::End(Some(session))];
        for name in ["ada", "a/b?c#d%20 é🦀", "..", "limit"] {
            let user = UserId::parse(name).unwrap();
            for request in orders.iter().cloned().chain(limits.map(AdminRequest::Limit)) {
                let (method, path, body) = write(&user, &request);
                assert!(path.parse::<http::Uri>().is_ok(), "{path}");
                assert_eq!(read(&method, &path, body.as_bytes()), Ok((user.clone(), request)), "{path} {body}");
            }
        }
    }

    #[test]
    fn bad_requests_are_told_apart() {
        let read = |method: &str, path: &str, body: &str| read(&method.parse().unwrap(), path, body.as_bytes());
        for path in ["/", "/v1/users", "/v2/users/ada", "/v1/users/ada/x", "/v1/users/ada/sessions/1/2"] {
            assert_eq!(read("GET", path, ""), Err(AdminRequestError::NotFound), "{path}");
        }
        for (method, path, allowed) in [
            ("POST", "/v1/users/ada", "GET, DELETE"),
            ("GET", "/v1/users/ada/limit", "PUT, DELETE"),
            ("GET", "/v1/users/ada/sessions", "DELETE"),
            ("PUT", "/v1/users/ada/sessions/1", "DELETE"),
        ] {
            assert_eq!(read(method, path, ""), Err(AdminRequestError::NotAllowed(allowed)), "{path}");
        }
        for (method, path, body) in [
            ("GET", "/v1/users/", ""),
            ("GET", "/v1/users/%FF", ""),
            ("GET", "/v1/users/%0A", ""),
            ("PUT", "/v1/users/ada/limit", ""),
            ("PUT", "/v1/users/ada/limit", r#"{"limit":-1}"#),
            ("PUT", "/v1/users/ada/limit", r#"{"limit":"many"}"#),
            ("PUT", "/v1/users/ada/limit", r#"{"limits":5}"#),
            ("PUT", "/v1/users/ada/limit", r#"{"when_full":"evict"}"#),
            ("DELETE", "/v1/users/ada/sessions/7", ""),
        ] {
            assert!(matches!(read(method, path, body), Err(AdminRequestError::Bad(_))), "{method} {path} {body}");
        }
    }
}
