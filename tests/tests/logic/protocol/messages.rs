//! The meaning of messages, and their errors.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use serde_json::json;
use session_core::SlotId;
use session_core::ledger::{Evict, StoreError};
use session_core::ledger::{NotResumed, Resumption};
use session_core::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, AuthenticateOptions, AuthenticateOptionsError, ClientMessage,
    Credential, CredentialError, RequestError, ServerMessage, ServerMessageError,
};
use session_core::{DisplayName, NodeId, ResumeToken};
use tests::values::{on_a_small_stack, without_ignored};

use super::all_values::*;

/// The protocol of plain clients. These bytes must never change.
#[test]
fn plain_protocol_has_these_bytes() {
    for (request, frame) in [
        (
            ClientMessage::Authenticate(Credential::new("my-unique-user-id")),
            r#"{"type":"AUTHENTICATE","payload":"my-unique-user-id"}"#,
        ),
        (ClientMessage::Bye, r#"{"type":"BYE","payload":null}"#),
        (ClientMessage::CheckConnections, r#"{"type":"CHECK_CONNECTIONS","payload":null}"#),
    ] {
        assert_eq!(ClientMessage::parse(frame), Ok(request.clone()));
        assert_eq!(request.encode(), frame);
    }
    for (reply, frame) in [
        (ServerMessage::Hello, r#"{"type":"HELLO","payload":"message from server"}"#),
        (
            ServerMessage::AuthenticateSuccess(user("my-unique-user-id", 1)),
            r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"my-unique-user-id","connections":1}}"#,
        ),
        (
            ServerMessage::AuthenticateFailure(AuthenticateFailure::LimitReached),
            r#"{"type":"AUTHENTICATE_FAILURE","payload":"User has reached connection limit, no more connections allowed"}"#,
        ),
        (ServerMessage::ByeSuccess, r#"{"type":"BYE_SUCCESS","payload":null}"#),
        (
            ServerMessage::CheckConnectionsSuccess(user("my-unique-user-id", 3)),
            r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"my-unique-user-id","connections":3}}"#,
        ),
        (ServerMessage::Error(RequestError::unknown_type("X")), r#"{"type":"ERROR","payload":"No such event type X"}"#),
    ] {
        assert_eq!(reply.encode(), frame);
        assert_eq!(ServerMessage::parse(frame).unwrap(), reply);
    }
}

#[test]
fn missing_payload_counts_as_null() {
    assert_eq!(ClientMessage::parse(r#"{"type":"BYE"}"#), Ok(ClientMessage::Bye));
    assert_eq!(ClientMessage::parse(r#"{"type":"CHECK_CONNECTIONS"}"#), Ok(ClientMessage::CheckConnections));
    assert_eq!(ClientMessage::parse(r#"{"type":"AUTHENTICATE"}"#), Ok(ClientMessage::Authenticate(Credential::None)));
}

#[test]
fn server_message_and_user_are_objects() {
    for frame in [
        r#"["BYE_SUCCESS",null]"#,
        r#"{"type":["BYE_SUCCESS"]}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":["ada",1]}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"","connections":1}}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":-1}}"#,
        r#"{"type":"ERROR","payload":null}"#,
    ] {
        assert!(matches!(ServerMessage::parse(frame), Err(ServerMessageError::Malformed(_))), "{frame}");
    }
}

#[test]
fn credential_is_never_printed() {
    let request = ClientMessage::Authenticate(Credential::new("hunter2"));
    assert_eq!(format!("{request:?}"), "Authenticate(Credential(7 bytes))");
    let request = ClientMessage::Authenticate(Credential::Token("hunter2".into()));
    assert_eq!(format!("{request:?}"), "Authenticate(Credential(token, 7 bytes))");
}

/// Different texts with the same meaning.
#[test]
fn equivalent_spellings_are_accepted() {
    let ada = || ClientMessage::Authenticate(Credential::new("ada"));
    for (message, request) in [
        ("\t\r\n { \"type\" :\n\"BYE\" , \"payload\" : null } \r\n", ClientMessage::Bye),
        (r#"{"payload":"ada","type":"AUTHENTICATE"}"#, ada()),
        (r#"{"\u0074ype":"\u0041UTHENTICATE","paylo\u0061d":"\u0061da"}"#, ada()),
        (r#"{"type":"AUTHENTICATE","payload":"ada","token":"x","x":[{"type":"BYE"}],"n":1e999}"#, ada()),
        // An unknown key may come twice.
        (r#"{"x":1,"type":"AUTHENTICATE","x":2,"payload":"ada"}"#, ada()),
        (r#"{"TYPE":"BYE","type":"CHECK_CONNECTIONS","":{"payload":1}}"#, ClientMessage::CheckConnections),
        // The authenticator, not the parser, checks the text of a credential.
        (r#"{"type":"AUTHENTICATE","payload":""}"#, ClientMessage::Authenticate(Credential::new(""))),
        (
            r#"{"type":"AUTHENTICATE","payload":"\u0000\ud83e\udd80é"}"#,
            ClientMessage::Authenticate(Credential::new("\0🦀é")),
        ),
        (
            "{\"type\":\"AUTHENTICATE\",\"payload\":\"\u{feff}\u{7f}\"}",
            ClientMessage::Authenticate(Credential::new("\u{feff}\u{7f}")),
        ),
    ] {
        assert_eq!(ClientMessage::parse(message), Ok(request), "{message}");
    }
}

#[test]
fn token_may_come_in_an_object() {
    let token = |text: &str| Ok(ClientMessage::AuthenticateWith(Credential::Token(text.into()), Box::default()));
    for (payload, request) in [
        (r#"{"token":"a.b.c"}"#, token("a.b.c")),
        (r#"{"x":{"token":"y"},"tok\u0065n":"\u0061.b","x":1}"#, token("a.b")),
        (r#"{"token":""}"#, token("")),
        (r#"{"token":"a","token":"b"}"#, Err(RequestError::DuplicateKey)),
        (r#"{"token":null,"token":"b"}"#, Err(RequestError::DuplicateKey)),
        (r#"{"token":"a""#, Err(RequestError::NotJson)),
    ] {
        let message = format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#);
        assert_eq!(ClientMessage::parse(&message).map(without_ignored), request, "{message}");
    }
}

#[test]
fn text_credential_is_user_and_token() {
    for (credential, user, token) in [
        (Credential::new("ada"), Some("ada"), Some("ada")),
        (Credential::User("ada".into()), Some("ada"), None),
        (Credential::Token("a.b.c".into()), None, Some("a.b.c")),
        (Credential::None, None, None),
    ] {
        assert_eq!((credential.user(), credential.token()), (user, token), "{credential:?}");
    }
}

#[test]
fn credential_that_is_no_string_is_none() {
    for payload in [
        "null",
        "true",
        "7",
        "-7",
        "7.5",
        r#"["ada"]"#,
        r#"{"id":"ada"}"#,
        "{}",
        r#"{"token":7}"#,
        r#"{"token":null}"#,
        r#"{"token":{"token":"ada"}}"#,
        r#"{"token":["ada"]}"#,
    ] {
        let message = format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#);
        assert_eq!(ClientMessage::parse(&message).map(without_ignored), Ok(no_credential(payload)), "{message}");
    }
}

/// All fields of the object, and their errors.
#[test]
fn authenticate_object_is_read_completely() {
    let id = NodeId::new(7).session(8);
    let token = ResumeToken::new([0xab; 32]);
    let (name, resume, ids) =
        (|text: &str| Some(DisplayName::parse(text).unwrap()), token.text(), vec![id.to_string(); 100]);
    let options = |options: AuthenticateOptions| {
        Ok(ClientMessage::AuthenticateWith(Credential::User("ada".into()), Box::new(options)))
    };
    let full = AuthenticateOptions {
        device: name("é"),
        label: name("x y"),
        resume: Some(token),
        evict: Some(Evict::Oldest),
        must_resume: true,
        ..AuthenticateOptions::default()
    };
    let sessions = |count| AuthenticateOptions {
        evict: Some(Evict::Sessions(vec![id; count].into())),
        ..AuthenticateOptions::default()
    };
    let bad = |error| Err(RequestError::BadOptions(error));
    for (fields, request) in [
        (
            json!({"device": "é", "label": "x y", "resume": resume, "evict": "oldest", "if_not_resumed": "refuse"}),
            options(full),
        ),
        (
            json!({"device": null, "label": null, "resume": null, "evict": null, "token": null, "if_not_resumed": null}),
            options(AuthenticateOptions::default()),
        ),
        (json!({"if_not_resumed": "acquire"}), options(AuthenticateOptions::default())),
        (
            json!({"more": {"user": ["x"]}, "devices": 7}),
            options(AuthenticateOptions {
                ignored: ["devices".into(), "more".into()].into(),
                ..AuthenticateOptions::default()
            }),
        ),
        (
            json!({"label": "é".repeat(65)}),
            options(AuthenticateOptions {
                label: name(&"é".repeat(64)),
                is_label_cut: true,
                ..AuthenticateOptions::default()
            }),
        ),
        (json!({"if_not_resumed": "maybe"}), bad(AuthenticateOptionsError::IfNotResumed)),
        (json!({"if_not_resumed": true}), bad(AuthenticateOptionsError::IfNotResumed)),
        (json!({"evict": [id.to_string()]}), options(sessions(1))),
        (json!({"evict": ids}), options(sessions(100))),
        (json!({"token": "x"}), bad(AuthenticateOptionsError::UserAndToken)),
        (json!({"device": ""}), bad(AuthenticateOptionsError::Device)),
        (json!({"device": "x".repeat(65)}), bad(AuthenticateOptionsError::Device)),
        (json!({"device": 7}), bad(AuthenticateOptionsError::Device)),
        (json!({"label": "a\nb"}), bad(AuthenticateOptionsError::Label)),
        (json!({"label": ["x"]}), bad(AuthenticateOptionsError::Label)),
        (json!({"resume": resume.to_uppercase()}), bad(AuthenticateOptionsError::Resume)),
        (json!({"resume": ""}), bad(AuthenticateOptionsError::Resume)),
        (json!({"resume": [resume]}), bad(AuthenticateOptionsError::Resume)),
        (json!({"evict": "newest"}), bad(AuthenticateOptionsError::Evict)),
        (json!({"evict": []}), bad(AuthenticateOptionsError::Evict)),
        (json!({"evict": [id.to_string(), 7]}), bad(AuthenticateOptionsError::Evict)),
        (json!({"evict": [[id.to_string()]]}), bad(AuthenticateOptionsError::Evict)),
        (json!({"evict": vec![id.to_string(); 101]}), bad(AuthenticateOptionsError::Evict)),
        (json!({"evict": {"oldest": true}}), bad(AuthenticateOptionsError::Evict)),
        (json!({"evict": true}), bad(AuthenticateOptionsError::Evict)),
    ] {
        let mut payload = json!({"user": "ada"});
        payload.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let message = json!({"type": "AUTHENTICATE", "payload": payload}).to_string();
        assert_eq!(ClientMessage::parse(&message), request, "{message}");
        // Only the server sees what was cut or ignored.
        if let Ok(request) = request.map(without_ignored)
            && !message.contains(&"é".repeat(65))
        {
            assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
        }
    }
    for twice in [r#""user":"eve""#, r#""evict":null,"evict":"oldest""#, r#""resume":1,"resume":2"#] {
        let message = format!(r#"{{"type":"AUTHENTICATE","payload":{{"user":"ada",{twice}}}}}"#);
        assert_eq!(ClientMessage::parse(&message), Err(RequestError::DuplicateKey), "{message}");
    }
    // Deep nesting needs no stack.
    let deep = format!(r#"{{"type":"AUTHENTICATE","payload":{{"evict":[{}"#, "[".repeat(100_000));
    assert_eq!(ClientMessage::parse(&deep), Err(RequestError::NotJson));
}

#[test]
fn list_and_end_session_are_parsed() {
    let id = NodeId::new(7).session(8);
    for (message, request) in [
        (r#"{"type":"LIST_SESSIONS"}"#.to_owned(), Ok(ClientMessage::ListSessions(None))),
        (r#"{"type":"LIST_SESSIONS","payload":null}"#.into(), Ok(ClientMessage::ListSessions(None))),
        (r#"{"type":"LIST_SESSIONS","payload":{}}"#.into(), Ok(ClientMessage::ListSessions(None))),
        (r#"{"type":"LIST_SESSIONS","payload":{"watch":null,"x":1}}"#.into(), Ok(ClientMessage::ListSessions(None))),
        (r#"{"type":"LIST_SESSIONS","payload":{"watch":true}}"#.into(), Ok(ClientMessage::ListSessions(Some(true)))),
        (r#"{"type":"LIST_SESSIONS","payload":{"watch":false}}"#.into(), Ok(ClientMessage::ListSessions(Some(false)))),
        (r#"{"type":"LIST_SESSIONS","payload":{"watch":1}}"#.into(), Err(RequestError::BadWatch)),
        (r#"{"type":"LIST_SESSIONS","payload":{"watch":"yes"}}"#.into(), Err(RequestError::BadWatch)),
        (r#"{"type":"LIST_SESSIONS","payload":true}"#.into(), Err(RequestError::UnwantedPayload)),
        (r#"{"type":"LIST_SESSIONS","payload":[]}"#.into(), Err(RequestError::UnwantedPayload)),
        (format!(r#"{{"type":"END_SESSION","payload":"{id}"}}"#), Ok(ClientMessage::EndSession(id))),
        (format!(r#"{{"type":"END_SESSION","payload":["{id}"]}}"#), Err(RequestError::BadSessionId)),
        (format!(r#"{{"type":"END_SESSION","payload":{{"user":"{id}"}}}}"#), Err(RequestError::BadSessionId)),
        (r#"{"type":"END_SESSION","payload":"7"}"#.into(), Err(RequestError::BadSessionId)),
        (r#"{"type":"END_SESSION"}"#.into(), Err(RequestError::BadSessionId)),
    ] {
        assert_eq!(ClientMessage::parse(&message), request, "{message}");
        if let Ok(request) = request {
            assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
        }
    }
}

#[test]
fn every_failure_has_a_code() {
    for (failure, code) in [
        (AuthenticateFailure::LimitReached, "limit_reached"),
        (AuthenticateFailure::Banned, "banned"),
        (AuthenticateFailure::DeviceFull, "device_full"),
        (AuthenticateFailure::Gone, "gone"),
        (AuthenticateFailure::NotResumed(NotResumed::Taken), "not_resumed"),
        (AuthenticateFailure::BadOptions(AuthenticateOptionsError::Device), "bad_request"),
        (AuthenticateFailure::AlreadyAuthenticated, "already_authenticated"),
        (AuthenticateFailure::Credential(CredentialError::NotText), "credential_refused"),
        (AuthenticateFailure::NotChecked, "not_checked"),
        (AuthenticateFailure::AnotherUser, "another_user"),
        (AuthenticateFailure::AnotherDevice, "another_device"),
        (AuthenticateFailure::Store(StoreError::Full), "store_unavailable"),
        (AuthenticateFailure::StoreTimedOut, "store_unavailable"),
        (AuthenticateFailure::Other("x".into()), "other"),
    ] {
        assert_eq!(failure.code(), code);
    }
}

/// A later version of the server may send more keys, an earlier one fewer.
#[test]
fn detailed_messages_tolerate_unknown_and_missing_keys() {
    let session = "0".repeat(32);
    let admitted = json!({"type": "AUTHENTICATE_SUCCESS", "payload":
        {"id": "ada", "connections": 1, "limit": 3, "session": session, "colour": "red"}});
    let Ok(ServerMessage::AuthenticateSuccessDetailed(success)) = ServerMessage::parse(&admitted.to_string()) else {
        panic!("it is at length")
    };
    assert_eq!((success.resume, success.linger), (None, Duration::ZERO));
    assert_eq!(success.slot, SlotId::new(success.session), "an earlier server had no names for slots");
    let newer = json!({"type": "AUTHENTICATE_SUCCESS", "payload":
        {"id": "ada", "connections": 1, "limit": 3, "session": session, "not_resumed": "revoked"}});
    let Ok(ServerMessage::AuthenticateSuccessDetailed(newer)) = ServerMessage::parse(&newer.to_string()) else {
        panic!("a grant is a grant")
    };
    assert_eq!(newer.resumption, Resumption::Failed(NotResumed::Unknown));
    let denied = json!({"type": "AUTHENTICATE_FAILURE", "payload": "No", "code": "new", "colour": "red"});
    let Ok(ServerMessage::AuthenticateFailureDetailed(failure)) = ServerMessage::parse(&denied.to_string()) else {
        panic!("it is at length")
    };
    assert_eq!(
        *failure,
        AuthenticateFailureDetails {
            reason: AuthenticateFailure::Other("No".into()),
            connections: None,
            limit: None,
            sessions: None,
            retry_after: None,
            client_choice: false,
            choose_within: None,
            waiting: 0,
            is_line_full: false,
        }
    );
    for wrong in [
        json!({"id": "ada", "connections": 1, "limit": 1025, "session": session}),
        json!({"id": "ada", "connections": 1, "limit": 3, "session": "7"}),
        json!({"id": "ada", "connections": 1, "limit": 3, "session": session, "resume": "7"}),
        json!({"id": "ada", "connections": 1, "session": session}),
    ] {
        let message = json!({"type": "AUTHENTICATE_SUCCESS", "payload": wrong}).to_string();
        assert!(matches!(ServerMessage::parse(&message), Err(ServerMessageError::Malformed(_))), "{message}");
    }
}

#[test]
fn truncated_message_is_not_json() {
    for request in
        [ClientMessage::Authenticate(Credential::new("ada\"\n")), ClientMessage::CheckConnections, ClientMessage::Bye]
    {
        let message = request.encode();
        for cut in 0..message.len() {
            assert_eq!(ClientMessage::parse(&message[..cut]), Err(RequestError::NotJson), "{}", &message[..cut]);
        }
    }
    for reply in server_messages() {
        let message = reply.encode();
        for cut in (0..message.len()).filter(|&cut| message.is_char_boundary(cut)) {
            assert!(
                matches!(ServerMessage::parse(&message[..cut]), Err(ServerMessageError::Malformed(_))),
                "{}",
                &message[..cut]
            );
        }
    }
}

#[test]
fn unknown_type_is_shown_up_to_64_characters() {
    for character in ["x", "é", "🦀", "\"", "\0"] {
        for (length, shown) in [(1, 1), (64, 64), (65, 64), (1000, 64)] {
            let message = json!({ "type": character.repeat(length) }).to_string();
            let error = ClientMessage::parse(&message).unwrap_err();
            assert_eq!(error, RequestError::UnknownType(character.repeat(shown).into()));
            assert_eq!(error.message(), format!("No such event type {}", character.repeat(shown)));
            let reply = ServerMessage::Error(error);
            assert_eq!(ServerMessage::parse(&reply.encode()).unwrap(), reply);
        }
    }
    assert_eq!(RequestError::SHOWN_CHARS, 64);
}

/// An AUTHENTICATE whose payload has no credential.
fn no_credential(payload: &str) -> ClientMessage {
    if payload.starts_with('{') {
        ClientMessage::AuthenticateWith(Credential::None, Box::default())
    } else {
        ClientMessage::Authenticate(Credential::None)
    }
}

#[test]
fn deeply_nested_message_needs_no_stack() {
    const DEPTH: usize = 100_000;
    let nested = |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(DEPTH), close.repeat(DEPTH));
    let values = [
        nested("[", "", "]"),
        nested("[", "1", "]"),
        nested(r#"{"type":"#, "null", "}"),
        nested(r#"{"token":"#, "null", "}"),
    ];
    let mut messages = vec![
        ("[".repeat(DEPTH), Err(RequestError::NotJson)),
        (r#"{"type":"#.repeat(DEPTH), Err(RequestError::NotJson)),
        (r#"{"payload":"#.repeat(DEPTH), Err(RequestError::NotJson)),
        (r#"[{"":"#.repeat(DEPTH), Err(RequestError::NotJson)),
        ("]".repeat(DEPTH), Err(RequestError::NotJson)),
        (values[0].clone(), Err(RequestError::NotAnObject)),
        (values[1].clone(), Err(RequestError::NotAnObject)),
        (values[2].clone(), Err(RequestError::TypeNotText)),
        (values[3].clone(), Err(RequestError::NoType)),
    ];
    for value in &values {
        messages.extend([
            (format!(r#"{{"type":{value}}}"#), Err(RequestError::TypeNotText)),
            (format!(r#"{{"payload":{value}}}"#), Err(RequestError::NoType)),
            (format!(r#"{{"type":"AUTHENTICATE","payload":{value}}}"#), Ok(no_credential(value))),
            (format!(r#"{{"type":"BYE","payload":{value}}}"#), Err(RequestError::UnwantedPayload)),
            (format!(r#"{{"type":"X","payload":{value}}}"#), Err(RequestError::unknown_type("X"))),
            (format!(r#"{{"x":{value},"type":"BYE"}}"#), Ok(ClientMessage::Bye)),
            (format!(r#"{{"x":{},"type":"BYE"}}"#, &value[..value.len() - 1]), Err(RequestError::NotJson)),
        ]);
    }
    // The parser of server messages recurses, up to a limit.
    for (message, _) in &messages {
        assert!(ServerMessage::parse(message).is_err(), "{message:.60}…");
    }
    on_a_small_stack(move || {
        for (message, expected) in messages {
            assert_eq!(ClientMessage::parse(&message).map(without_ignored), expected, "{message:.60}…");
        }
    });
}

#[test]
fn client_accepts_messages_of_later_servers() {
    let parsed = |frame: &str| ServerMessage::parse(frame).unwrap();
    // More keys may follow anywhere.
    let frame =
        r#"{"v":2,"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","limit":3,"connections":1},"resume":"x"}"#;
    assert_eq!(parsed(frame), ServerMessage::AuthenticateSuccess(user("ada", 1)));
    assert_eq!(parsed(r#"{"type":"HELLO","payload":"any words"}"#), ServerMessage::Hello);
    assert_eq!(parsed(r#"{"type":"BYE_SUCCESS"}"#), ServerMessage::ByeSuccess);
    // Unknown reasons of a later server are kept as text.
    let closed = ServerMessage::AuthenticateFailure(AuthenticateFailure::Other("We are closed on Sundays".into()));
    assert_eq!(parsed(r#"{"type":"AUTHENTICATE_FAILURE","payload":"We are closed on Sundays"}"#), closed);
    assert_eq!(parsed(&closed.encode()), closed);
    let tired = ServerMessage::Error(RequestError::Other("I am tired".into()));
    assert_eq!(parsed(r#"{"type":"ERROR","payload":"I am tired"}"#), tired);
    assert_eq!(parsed(&tired.encode()), tired);
}

#[test]
fn malformed_server_messages_are_errors() {
    for frame in [
        "",
        "HELLO",
        "null",
        "[]",
        "{}",
        r#"{"type":null}"#,
        r#"{"type":1,"payload":null}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS"}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":null}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":"ada"}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada"}}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"connections":1}}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"","connections":1}}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"a\u0000","connections":1}}"#,
        r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":-1}}"#,
        r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1.5}}"#,
        r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":4294967296}}"#,
        r#"{"type":"AUTHENTICATE_FAILURE","payload":null}"#,
        r#"{"type":"AUTHENTICATE_FAILURE"}"#,
        r#"{"type":"ERROR","payload":{"code":1}}"#,
        r#"{"type":"HELLO","payload":"\ud800"}"#,
        r#"{"type":"HELLO","type":"HELLO"}"#,
        r#"{"type":"HELLO"} x"#,
    ] {
        assert!(matches!(ServerMessage::parse(frame), Err(ServerMessageError::Malformed(_))), "{frame}");
    }
    let error = ServerMessage::parse(r#"{"type":"SURPRISE","payload":null}"#).unwrap_err();
    assert!(matches!(&error, ServerMessageError::UnknownType(kind) if &**kind == "SURPRISE"));
    assert_eq!(error.to_string(), r#"unknown message type "SURPRISE""#);
}
