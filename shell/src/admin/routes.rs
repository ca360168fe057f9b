//! Admin requests as HTTP: methods, paths and bodies.
//!
//! | | |
//! |---|---|
//! | `GET /v1/status` | [`AdminCall::Status`] |
//! | `GET /v1/nodes` | [`AdminCall::ListNodes`] |
//! | `DELETE /v1/nodes/{node}` | [`AdminCall::Bury`] |
//! | `GET /v1/users?prefix=…&with_sessions=true&limit=…&after=…`, each of them optional | [`AdminCall::ListUsers`] |
//! | `GET /v1/users/{user}` | [`AdminRequest::Explain`] |
//! | `DELETE /v1/users/{user}` | [`AdminRequest::Forget`] |
//! | `PUT /v1/users/{user}/limit`, a [`UserPatch`] | [`AdminRequest::Limit`] |
//! | `DELETE /v1/users/{user}/limit` | [`AdminRequest::Limit`], back to the default |
//! | `DELETE /v1/users/{user}/sessions` | [`AdminRequest::End`], all |
//! | `DELETE /v1/users/{user}/sessions/{session}` | [`AdminRequest::End`], one |
//!
//! The user is percent-encoded in the path (RFC 3986 §2.1), and so are the values of the query: a plus sign there is a plus
//! sign. The answer is a [`UserReport`](super::UserReport), a [`UserList`](super::UserList), a
//! [`StatusReport`](super::StatusReport), a [`NodesReport`](super::NodesReport) or a [`BurialReport`](super::BurialReport) in JSON, or `{"error": message}`.

use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode};
use session_core::{NodeId, SessionId, UserId};

use super::error::{AdminError, AdminRequestError};
use super::request::{AdminCall, AdminRequest, DefaultWord, Override, UserPatch};
use super::user_list::UserListRequest;

const USERS: &str = "/v1/users";
const STATUS: &str = "/v1/status";
const NODES: &str = "/v1/nodes";

/// Reads a request. `target` is the path, and the query if there is one.
pub(super) fn read(method: &Method, target: &str, body: &[u8]) -> Result<AdminCall, AdminRequestError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match (path, method) {
        (STATUS, &Method::GET) => Ok(AdminCall::Status),
        (USERS, &Method::GET) => read_list(query).map(AdminCall::ListUsers),
        (NODES, &Method::GET) => Ok(AdminCall::ListNodes),
        (STATUS | USERS | NODES, _) => Err(AdminRequestError::NotAllowed("GET")),
        _ => match path.strip_prefix(NODES).and_then(|rest| rest.strip_prefix('/')) {
            Some(node) => read_of_node(method, node),
            None => read_of_user(method, path, body),
        },
    }
}

fn read_of_node(method: &Method, node: &str) -> Result<AdminCall, AdminRequestError> {
    match *method {
        Method::DELETE => parse_node(node).map(AdminCall::Bury).map_err(bad),
        _ => Err(AdminRequestError::NotAllowed("DELETE")),
    }
}

/// Reads the id of a node. `Err` is the reason.
pub(crate) fn parse_node(text: &str) -> Result<NodeId, String> {
    let is_id = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = u64::from_str_radix(text, 16).ok().filter(|_| is_id);
    bits.map(NodeId::new).ok_or_else(|| "the id of a server has 16 hexadecimal digits".into())
}

fn read_of_user(method: &Method, path: &str, body: &[u8]) -> Result<AdminCall, AdminRequestError> {
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
    Ok(AdminCall::OfUser(user, request))
}

fn read_list(query: &str) -> Result<UserListRequest, AdminRequestError> {
    let mut request = UserListRequest::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|_| bad(format!("`{name}` is not UTF-8")))?;
        match name {
            "prefix" => request.prefix = value.into_owned(),
            "after" => request.after = Some(value.into_owned()),
            "limit" => {
                let limit = value.parse().map_err(|_| bad("`limit` is not a whole number".into()))?;
                request.limit = Some(limit);
            }
            "with_sessions" => {
                request.with_sessions = match &*value {
                    "" | "true" => true,
                    "false" => false,
                    _ => return Err(bad("`with_sessions` is true or false".into())),
                };
            }
            _ => return Err(bad(format!("there is no `{name}`: give prefix, with_sessions, limit and after"))),
        }
    }
    Ok(request)
}

fn bad(message: String) -> AdminRequestError {
    AdminRequestError::Bad(message)
}

/// Writes what [`read`] reads: method, path with query, and body.
pub(super) fn write(call: &AdminCall) -> (Method, String, String) {
    match call {
        AdminCall::OfUser(user, request) => write_of_user(user, request),
        AdminCall::ListUsers(request) => (Method::GET, write_list(request), String::new()),
        AdminCall::Status => (Method::GET, STATUS.into(), String::new()),
        AdminCall::ListNodes => (Method::GET, NODES.into(), String::new()),
        AdminCall::Bury(node) => (Method::DELETE, format!("{NODES}/{node}"), String::new()),
    }
}

fn write_of_user(user: &UserId, request: &AdminRequest) -> (Method, String, String) {
    let user = format!("{USERS}/{}", encode(user.as_str()));
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

fn write_list(UserListRequest { prefix, with_sessions, after, limit }: &UserListRequest) -> String {
    let mut target = format!("{USERS}?prefix={}&with_sessions={with_sessions}", encode(prefix));
    if let Some(limit) = limit {
        target += &format!("&limit={limit}");
    }
    if let Some(after) = after {
        target += &format!("&after={}", encode(after));
    }
    target
}

fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// The HTTP status for a request that was not carried out.
pub(super) fn status(error: &AdminError) -> StatusCode {
    match error {
        AdminError::BadRequest(_) => StatusCode::UNPROCESSABLE_ENTITY,
        AdminError::NoSuchSession | AdminError::NoSuchNode(..) => StatusCode::NOT_FOUND,
        AdminError::HoldsSlots(_) | AdminError::NotShared | AdminError::OwnNode => StatusCode::CONFLICT,
        AdminError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        AdminError::NotEnforced(why) => status(why),
        AdminError::InDoubt => StatusCode::INTERNAL_SERVER_ERROR,
        AdminError::ReportUnavailable => StatusCode::ACCEPTED,
        AdminError::Unanswered | AdminError::StoreTimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
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
                assert_read_as_written(AdminCall::OfUser(user.clone(), request));
            }
        }
    }

    fn assert_read_as_written(call: AdminCall) {
        let (method, target, body) = write(&call);
        assert!(target.parse::<http::Uri>().is_ok(), "{target}");
        assert_eq!(read(&method, &target, body.as_bytes()), Ok(call), "{target} {body}");
    }

    #[test]
    fn list_and_status_are_read_as_written() {
        assert_read_as_written(AdminCall::Status);
        assert_read_as_written(AdminCall::ListNodes);
        assert_read_as_written(AdminCall::Bury(NodeId::new(7)));
        assert_read_as_written(AdminCall::Bury(NodeId::new(u64::MAX)));
        for prefix in ["", "ada", "a&b=c+d%20 é?#"] {
            for (limit, after) in [(None, None), (Some(1000), Some("616461".to_owned()))] {
                let request = UserListRequest { prefix: prefix.into(), with_sessions: limit.is_some(), after, limit };
                assert_read_as_written(AdminCall::ListUsers(request));
            }
        }
        let list = |target| read(&Method::GET, target, b"").unwrap();
        assert_eq!(list("/v1/users"), AdminCall::ListUsers(UserListRequest::default()));
        let plus = UserListRequest { prefix: "a+b".into(), with_sessions: true, ..UserListRequest::default() };
        assert_eq!(list("/v1/users?with_sessions&prefix=a+b"), AdminCall::ListUsers(plus));
    }

    #[test]
    fn bad_requests_are_told_apart() {
        let read = |method: &str, path: &str, body: &str| read(&method.parse().unwrap(), path, body.as_bytes());
        for path in ["/", "/v1/user", "/v1/status/x", "/v2/users/ada", "/v1/users/ada/x", "/v1/users/ada/sessions/1/2"]
        {
            assert_eq!(read("GET", path, ""), Err(AdminRequestError::NotFound), "{path}");
        }
        for (method, path, allowed) in [
            ("POST", "/v1/users", "GET"),
            ("PUT", "/v1/status", "GET"),
            ("POST", "/v1/nodes", "GET"),
            ("GET", "/v1/nodes/0000000000000007", "DELETE"),
            ("POST", "/v1/users/ada", "GET, DELETE"),
            ("GET", "/v1/users/ada/limit", "PUT, DELETE"),
            ("GET", "/v1/users/ada/sessions", "DELETE"),
            ("PUT", "/v1/users/ada/sessions/1", "DELETE"),
        ] {
            assert_eq!(read(method, path, ""), Err(AdminRequestError::NotAllowed(allowed)), "{path}");
        }
        for (method, path, body) in [
            ("DELETE", "/v1/nodes/7", ""),
            ("DELETE", "/v1/nodes/+000000000000007", ""),
            ("DELETE", "/v1/nodes/", ""),
            ("GET", "/v1/users?limits=5", ""),
            ("GET", "/v1/users?limit=-5", ""),
            ("GET", "/v1/users?limit=", ""),
            ("GET", "/v1/users?prefix=%FF", ""),
            ("GET", "/v1/users?with_sessions=1", ""),
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
