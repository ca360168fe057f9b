//! The bytes that a cycle sends, prepared once for all cycles.

use std::io::Write as _;

use async_tungstenite::tungstenite::client::IntoClientRequest as _;
use async_tungstenite::tungstenite::handshake::client::{Request, generate_request};
use http::HeaderValue;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use session_core::protocol::ClientMessage;

use super::Users;
use super::wire::{Opcode, write_frame};
use crate::client::upgrade::Refusal;
use crate::client::{Credentials, Url};

/// The key of every handshake, the one of RFC 6455 §1.3. It only proves that the server has read the request.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What a server answers to [`KEY`].
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The bytes that a cycle sends to one server.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) url: Url,
    /// The request for a WebSocket.
    pub(super) request: Vec<u8>,
    /// AUTHENTICATE before the user's number, and after it.
    authenticate: [Vec<u8>; 2],
    bye: Vec<u8>,
}

impl Script {
    pub(super) fn new(url: Url) -> Self {
        let (request, _key) = generate_request(upgrade_request(&url)).expect("a URL makes a good request");
        let authenticate =
            ClientMessage::Authenticate(Credentials::User(Users::name(0)).credential()).encode().into_bytes();
        let digits = Users::digits(0);
        let at = authenticate
            .windows(digits.len())
            .rposition(|window| window == digits.as_bytes())
            .expect("the message names the user");
        let authenticate = [authenticate[..at].to_vec(), authenticate[at + digits.len()..].to_vec()];
        let mut bye = Vec::new();
        write_frame(Opcode::Text, &[ClientMessage::Bye.encode().as_bytes()], &mut bye);
        Self { url, request, authenticate, bye }
    }

    /// Appends AUTHENTICATE for the user with this number.
    pub(super) fn write_authenticate(&self, user: u32, out: &mut Vec<u8>) {
        // Ten digits are the most that a number has.
        let mut digits = [0; 10];
        let mut rest = &mut digits[..];
        write!(rest, "{user:08}").expect("ten digits have room");
        let length = 10 - rest.len();
        let [before, after] = &self.authenticate;
        write_frame(Opcode::Text, &[before, &digits[..length], after], out);
    }

    pub(super) fn write_bye(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bye);
    }

    /// Why this head of an answer opens no WebSocket. `None` if it does.
    pub(super) fn refusal(&self, head: &[u8]) -> Option<Refusal> {
        if is_upgrade(head) { None } else { Refusal::from_head(upgrade_request(&self.url), head) }
    }
}

fn upgrade_request(url: &Url) -> Request {
    let mut request = url.uri().into_client_request().expect("a URL makes a good request");
    request.headers_mut().insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(KEY));
    request
}

/// Whether the head of an answer opens the WebSocket that was asked for. Answers that are odd, but good, are not known here.
fn is_upgrade(head: &[u8]) -> bool {
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    if !lines.next().is_some_and(|status| status == b"HTTP/1.1 101" || status.starts_with(b"HTTP/1.1 101 ")) {
        return false;
    }
    let (mut upgrades, mut connection, mut accepts) = (false, false, false);
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is = |header: http::HeaderName| name.eq_ignore_ascii_case(header.as_str().as_bytes());
        if is(UPGRADE) {
            upgrades = value.eq_ignore_ascii_case(b"websocket");
        } else if is(CONNECTION) {
            connection = value.eq_ignore_ascii_case(b"upgrade");
        } else if is(SEC_WEBSOCKET_ACCEPT) {
            accepts = value == ACCEPT;
        } else if is(SEC_WEBSOCKET_PROTOCOL) {
            return false;
        }
    }
    upgrades && connection && accepts
}

#[cfg(test)]
mod tests {
    use super::*;

    use async_tungstenite::tungstenite::handshake::derive_accept_key;

    fn script(url: &str) -> Script {
        Script::new(url.parse().expect("a good URL"))
    }

    #[test]
    fn request_has_host_path_and_key() {
        let request = String::from_utf8(script("ws://[::1]:3000/a/b?c=d").request).expect("a text");
        assert!(request.starts_with("GET /a/b?c=d HTTP/1.1\r\nHost: [::1]:3000\r\n"), "{request}");
        assert!(request.contains(KEY) && request.ends_with("\r\n\r\n"), "{request}");
        assert_eq!(derive_accept_key(KEY.as_bytes()).as_bytes(), ACCEPT);
    }

    #[test]
    fn authenticate_is_that_of_the_client() {
        let script = script("ws://h");
        for user in [0, 7, 12_345_678, 100_000_000, u32::MAX] {
            let (mut written, mut expected) = (Vec::new(), Vec::new());
            script.write_authenticate(user, &mut written);
            let message = ClientMessage::Authenticate(Credentials::User(Users::name(user)).credential());
            write_frame(Opcode::Text, &[message.encode().as_bytes()], &mut expected);
            assert_eq!(written, expected, "{user}");
        }
    }

    #[test]
    fn only_the_right_answer_opens_a_websocket() {
        let head = |lines: &str| format!("HTTP/1.1 {lines}\r\n\r\n").into_bytes();
        let accept = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let good = format!("101 Switching Protocols\r\nconnection: Upgrade\r\nUPGRADE:WebSocket\r\n{accept}");
        assert!(is_upgrade(&head(&good)));
        assert!(is_upgrade(&head(&good.replace(" Switching Protocols", ""))));
        for bad in [
            good.replace("101", "200"),
            good.replace("101 ", "1010 "),
            good.replace("xOo", "xOO"),
            good.replace("connection", "x-connection"),
            good.replace("WebSocket", "h2c"),
            good.clone() + "\r\nSec-WebSocket-Protocol: chat",
            good.replace(accept, ""),
            String::new(),
        ] {
            assert!(!is_upgrade(&head(&bad)), "{bad}");
        }
        assert!(!is_upgrade(&head(&good)[3..]));
    }
}
