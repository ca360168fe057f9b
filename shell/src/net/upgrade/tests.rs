//! What a request is answered.

use std::net::SocketAddr;

use super::*;

const VALID_HEADERS: [(&str, &str); 5] = [
    ("host", "test"),
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn request(method: &Method, path: &str, headers: &[(&'static str, &str)]) -> Response<Full<Bytes>> {
    respond(&ConnectionSettings::default(), method, path, Version::HTTP_11, headers)
}

/// The response to a client on this machine.
fn respond(
    settings: &ConnectionSettings,
    method: &Method,
    path: &str,
    version: Version,
    headers: &[(&'static str, &str)],
) -> Response<Full<Bytes>> {
    let headers = headers.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    let headers = headers.collect();
    let local: SocketAddr = "127.0.0.1:3000".parse().unwrap();
    let client = ForwardedClient { address: local.ip(), scheme: None };
    let target = request_target(settings, &Peer::of_socket(local.ip(), local), &client, &headers);
    response_for(settings, &target, method, path, version, &headers)
}

#[test]
fn valid_handshake_gets_the_rfc_accept_key() {
    let response = request(&Method::GET, "/", &VALID_HEADERS);
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8(head_to_bytes(response.status(), response.headers())).unwrap(), head);
}

#[test]
fn health_check_tells_whether_sessions_are_admitted() {
    let settings = ConnectionSettings::default();
    let get = |headers: &[(&'static str, &str)]| {
        respond(&settings, &Method::GET, "/", Version::HTTP_11, headers).status().as_u16()
    };
    let host = [("host", "test")];
    assert_eq!(get(&host), 200);
    settings.readiness.set_refusal(Some("The session store is full, try again later"));
    assert_eq!((get(&host), get(&VALID_HEADERS)), (503, 101), "a session may still resume or list others");
    settings.readiness.set_refusal(None);
    assert_eq!(get(&host), 200);
}

#[test]
fn invalid_requests_get_their_status() {
    let with = |name: &'static str, value: &'static str| {
        let mut headers = VALID_HEADERS.to_vec();
        headers.retain(|&(other, _)| other != name);
        if !value.is_empty() {
            headers.push((name, value));
        }
        request(&Method::GET, "/", &headers).status().as_u16()
    };
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(request(&method, "/", &[("host", "test")]).status(), 200);
    }
    assert_eq!(request(&Method::HEAD, "/", &VALID_HEADERS).status(), 200, "only GET opens a web socket");
    assert_eq!(request(&Method::GET, "/", &[]).status(), 400);
    assert_eq!(request(&Method::GET, "/", &[("host", "test"), ("host", "test")]).status(), 400);
    assert_eq!(request(&Method::GET, "/x", &VALID_HEADERS).status(), 404);
    assert_eq!(request(&Method::POST, "/", &VALID_HEADERS).status(), 405);
    assert_eq!(with("connection", "close"), 400);
    assert_eq!(with("upgrade", "h2c"), 200);
    assert_eq!(with("sec-websocket-version", "8"), 426);
    assert_eq!(with("sec-websocket-version", ""), 426);
    for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ===", "dGhlIHNhbXBsZSBub25j*Q=="] {
        assert_eq!(with("sec-websocket-key", key), 400, "{key:?}");
    }
    let old = respond(&ConnectionSettings::default(), &Method::GET, "/", Version::HTTP_10, &[]);
    assert_eq!(old.status(), 200);
}

#[test]
fn web_socket_is_only_at_its_paths() {
    let paths = ["/chess", "/go/ws"].map(|path| path.parse().unwrap()).into_iter().collect();
    let settings = ConnectionSettings { paths, ..ConnectionSettings::default() };
    for (path, plain, web_socket) in
        [("/chess", 200, 101), ("/go/ws", 200, 101), ("/", 200, 404), ("/chess/", 404, 404), ("/go", 404, 404)]
    {
        let status = |headers: &[(&'static str, &str)]| {
            respond(&settings, &Method::GET, path, Version::HTTP_11, headers).status().as_u16()
        };
        assert_eq!((status(&[("host", "test")]), status(&VALID_HEADERS)), (plain, web_socket), "{path}");
    }
}

#[test]
fn offered_token_is_not_shown() {
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2VhbA";
    let lines = ["graphql-transport-ws,, bearer ", token, "0123456789abcdef0123456789abcdef"];
    assert_eq!(shown_subprotocols(&lines), "graphql-transport-ws, bearer, (46 bytes), (32 bytes)");
}

#[test]
fn refused_origin_is_named_within_bounds() {
    assert_eq!(
        refused_origin(b"https://evil.example"),
        "Pages of the origin 'https://evil.example' may not connect, allowed_origins does not list it"
    );
    assert_eq!(refused_origin(SEVERAL_LINES), "The header Origin may be given only once");
    let longest = refused_origin(&[0xff; 8000]);
    assert!(longest.contains("\u{fffd}…'") && longest.len() < 400, "{longest}");
}
