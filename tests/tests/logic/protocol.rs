//! The wire protocol, byte for byte: every message, every close, every rejection.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::iter::successors;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use session_core::ledger::{EndReason, Evict, SlotLimit, StoreError};
use session_core::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, AuthenticateOptions, AuthenticateOptionsError,
    AuthenticateSuccessDetails, ClientMessage, CloseReason, Credential, CredentialError, RequestError, ServerMessage,
    ServerMessageError, SessionInfo, SessionList, SessionState, TokenError, UserSummary,
};
use session_core::{DisplayName, NodeId, ResumeToken, UserId, UserIdError};

/// The protocol that a plain client speaks: these bytes are a promise.
#[test]
fn the_messages_of_the_plain_protocol() {
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
fn a_missing_payload_is_taken_as_null() {
    assert_eq!(ClientMessage::parse(r#"{"type":"BYE"}"#), Ok(ClientMessage::Bye));
    assert_eq!(ClientMessage::parse(r#"{"type":"CHECK_CONNECTIONS"}"#), Ok(ClientMessage::CheckConnections));
    assert_eq!(ClientMessage::parse(r#"{"type":"AUTHENTICATE"}"#), Ok(ClientMessage::Authenticate(Credential::None)));
}

#[test]
fn every_reply() {
    let mut table = String::new();
    for reply in replies() {
        writeln!(table, "{reply:?}\n    {}", reply.encode()).unwrap();
        assert_eq!(ServerMessage::parse(&reply.encode()).unwrap(), reply);
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_reply_is_an_object_and_so_is_a_user() {
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
fn every_request() {
    let credentials = ["ada", "", "ada \"the\" \\ countess", "é🦀\u{2028}", "\0\n\u{7f}"];
    let credentials = credentials.map(Credential::new).into_iter().chain([Credential::None]);
    let requests = credentials.map(ClientMessage::Authenticate);
    let session = NodeId::new(7).session(8);
    let ask = AuthenticateOptions {
        device: DisplayName::parse("laptop"),
        label: DisplayName::parse("é \"7\""),
        resume: Some(ResumeToken::new([0x5e; 32])),
        evict: Some(Evict::Oldest),
    };
    let these =
        AuthenticateOptions { evict: Some(Evict::Sessions([session].into())), ..AuthenticateOptions::default() };
    let asks = [
        (Credential::Token("a.b.c".into()), AuthenticateOptions::default()),
        (Credential::User("ada".into()), ask),
        (Credential::None, these),
        (Credential::None, AuthenticateOptions { evict: Some(Evict::Nobody), ..AuthenticateOptions::default() }),
    ];
    let asks = asks.map(|(credential, ask)| ClientMessage::AuthenticateWith(credential, Box::new(ask)));
    let others = [
        ClientMessage::CheckConnections,
        ClientMessage::ListSessions,
        ClientMessage::EndSession(session),
        ClientMessage::Bye,
    ];
    let mut table = String::new();
    for request in requests.chain(asks).chain(others) {
        writeln!(table, "{request:?}\n    {}", visible(&request.encode())).unwrap();
        assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_credential_is_never_printed() {
    let request = ClientMessage::Authenticate(Credential::new("hunter2"));
    assert_eq!(format!("{request:?}"), "Authenticate(Credential(7 bytes))");
    let request = ClientMessage::Authenticate(Credential::Token("hunter2".into()));
    assert_eq!(format!("{request:?}"), "Authenticate(Credential(token, 7 bytes))");
}

#[test]
fn every_close_reason() {
    let listed: Vec<_> = successors(close_reason_after(None), |&reason| close_reason_after(Some(reason))).collect();
    assert_eq!(CloseReason::ALL.to_vec(), listed);
    insta::assert_snapshot!(listed.iter().fold(String::new(), |table, reason| format!("{table}{reason}\n")), @r"
    1000 Goodbye
    1001 Server is shutting down
    1002 WebSocket protocol error
    1003 Binary messages are not supported
    1007 Text message is not valid UTF-8
    1008 Too many bad messages
    1008 Too many messages in a second
    1009 Message is too big
    1011 Internal error
    1013 Nobody can be admitted now
    4401 Not authenticated in time
    4402 Token has expired
    4408 Peer was silent for too long
    4409 The slot of this session was taken away
    4410 The session goes on on another connection
    ");

    let mut codes: Vec<_> = listed.iter().map(|reason| reason.code()).collect();
    assert_eq!(codes.iter().filter(|&&code| code == 1008).count(), 2, "both are a policy that was violated");
    codes.dedup();
    assert!(
        codes.is_sorted_by(|a, b| a < b) && codes.len() + 1 == listed.len(),
        "or else unique, and in order: {codes:?}"
    );
    for reason in listed {
        // RFC 6455 §5.5: a control frame holds 125 bytes, two of them are the code. §7.4: who may use which code.
        assert!((1..=123).contains(&reason.message().len()), "{reason}");
        assert!(matches!(reason.code(), 1000..=1003 | 1007..=1014 | 4000..=4999), "{reason}");
        assert_eq!(reason.to_string(), format!("{} {}", reason.code(), reason.message()));
    }
}

/// What a server answers to every kind of message that it does not serve.
#[test]
fn every_rejection() {
    let mut table = String::new();
    for (title, messages) in rejected() {
        writeln!(table, "# {title}\n").unwrap();
        for message in messages {
            let answer = ClientMessage::parse(message).map_err(|error| error.to_string());
            writeln!(table, "{}\n    {}", visible(message), visible(&answer.expect_err(message))).unwrap();
        }
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}

#[rustfmt::skip]
fn rejected() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("Not JSON", vec![
            "", " ", "Hello?", "{", "}", "{}}", "nul", "'BYE'", "\"BYE", "BYE", "{type:\"BYE\"}", "{'type':'BYE'}",
            r#"{"type":"BYE",}"#, r#"{"type" "BYE"}"#, r#"{"type":"BYE""payload":null}"#, r#"{"type":BYE}"#,
            r#"{1:"BYE"}"#, r#"{"type":"BYE"}//"#, r#"{"type":"BYE"}{"type":"BYE"}"#, r#"{"type":"BYE"} x"#,
            "{\"type\":\"BYE\"}\0", "\0{\"type\":\"BYE\"}", "{\"type\":\"B\0YE\"}", "{\"type\":\"BYE\n\"}",
            "\u{feff}{\"type\":\"BYE\"}", "\u{a0}{\"type\":\"BYE\"}", "\u{b}{\"type\":\"BYE\"}",
            r#"{"type":"\ud800"}"#, r#"{"type":"\udc00"}"#, r#"{"type":"\ud800\u0041"}"#, r#"{"type":"\u12"}"#, r#"{"type":"\x41"}"#,
            r#"{"type":"AUTHENTICATE","payload":"\ud83e"}"#, r#"{"\ud800":1,"type":"BYE"}"#,
            r#"{"type":"BYE","payload":01}"#, r#"{"type":"BYE","payload":+1}"#, r#"{"type":"BYE","payload":1.}"#,
            r#"{"type":"BYE","payload":NaN}"#, r#"{"type":"BYE","payload":nil}"#, r#"{"type":"BYE","x":[1,]}"#,
        ]),
        ("JSON, but not an object", vec![
            "null", "true", "false", "0", "-1", "18446744073709551616", "1.5e3", "\"\"", "\"BYE\"", r#""\u0042""#,
            "[]", r#"["BYE",null]"#, r#"[{"type":"BYE"}]"#,
        ]),
        ("The same key twice", vec![
            r#"{"type":"BYE","type":"BYE"}"#, r#"{"type":"BYE","type":"CHECK_CONNECTIONS"}"#,
            r#"{"type":null,"type":"BYE"}"#, r#"{"type":1,"type":"BYE"}"#, r#"{"type":"BYE","\u0074ype":"BYE"}"#,
            r#"{"type":"BYE","payload":null,"payload":null}"#, r#"{"payload":"ada","type":"AUTHENTICATE","payload":"bob"}"#,
            r#"{"payload":{},"payload":null,"type":"BYE"}"#,
        ]),
        ("No type", vec![
            "{}", " { } ", r#"{"payload":null}"#, r#"{"payload":"ada"}"#, r#"{"Type":"BYE"}"#, r#"{"type ":"BYE"}"#,
            r#"{"type":null}"#, r#"{"type":null,"payload":"ada"}"#, r#"{"payload":{"type":"BYE"}}"#, r#"{"":"BYE"}"#,
        ]),
        ("A type that is not a string", vec![
            r#"{"type":1}"#, r#"{"type":-1}"#, r#"{"type":1.5}"#, r#"{"type":true}"#, r#"{"type":false}"#, r#"{"type":[]}"#,
            r#"{"type":["BYE"]}"#, r#"{"type":{}}"#, r#"{"type":{"type":"BYE"}}"#, r#"{"type":18446744073709551616}"#,
        ]),
        ("A type that does not exist", vec![
            r#"{"type":""}"#, r#"{"type":"X"}"#, r#"{"type":"bye"}"#, r#"{"type":"BYE "}"#, r#"{"type":" BYE"}"#,
            r#"{"type":"BYE\u0000"}"#, r#"{"type":"DANCE","payload":{"with":["ada"]}}"#, r#"{"type":"HELLO","payload":null}"#,
            r#"{"type":"BYE_SUCCESS"}"#, r#"{"type":"null"}"#, r#"{"type":"é🦀"}"#, r#"{"type":"\ud83e\udd80"}"#,
            r#"{"type":"\"\\\n"}"#,
        ]),
        ("A payload of the wrong kind", vec![
            r#"{"type":"BYE","payload":"null"}"#, r#"{"type":"BYE","payload":""}"#, r#"{"type":"BYE","payload":false}"#,
            r#"{"type":"BYE","payload":0}"#, r#"{"type":"BYE","payload":-1}"#, r#"{"type":"BYE","payload":0.5}"#,
            r#"{"type":"BYE","payload":[]}"#, r#"{"type":"BYE","payload":{}}"#,
            r#"{"type":"CHECK_CONNECTIONS","payload":"ada"}"#, r#"{"type":"CHECK_CONNECTIONS","payload":true}"#,
            r#"{"type":"CHECK_CONNECTIONS","payload":1}"#, r#"{"type":"CHECK_CONNECTIONS","payload":-1}"#,
            r#"{"type":"CHECK_CONNECTIONS","payload":1.5}"#, r#"{"type":"CHECK_CONNECTIONS","payload":[null]}"#,
            r#"{"type":"CHECK_CONNECTIONS","payload":{"id":null}}"#,
        ]),
    ]
}

/// Ways to say the same that are as good.
#[test]
fn what_is_accepted() {
    let ada = || ClientMessage::Authenticate(Credential::new("ada"));
    for (message, request) in [
        ("\t\r\n { \"type\" :\n\"BYE\" , \"payload\" : null } \r\n", ClientMessage::Bye),
        (r#"{"payload":"ada","type":"AUTHENTICATE"}"#, ada()),
        (r#"{"\u0074ype":"\u0041UTHENTICATE","paylo\u0061d":"\u0061da"}"#, ada()),
        (r#"{"type":"AUTHENTICATE","payload":"ada","token":"x","x":[{"type":"BYE"}],"n":1e999}"#, ada()),
        // What is ignored may come twice.
        (r#"{"x":1,"type":"AUTHENTICATE","x":2,"payload":"ada"}"#, ada()),
        (r#"{"TYPE":"BYE","type":"CHECK_CONNECTIONS","":{"payload":1}}"#, ClientMessage::CheckConnections),
        // What a credential must look like is for the authenticator.
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
fn a_token_may_come_in_an_object() {
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
        assert_eq!(ClientMessage::parse(&message), request, "{message}");
    }
}

#[test]
fn a_text_can_be_a_user_or_a_token_and_neither_of_these_the_other() {
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
fn a_credential_that_is_no_string_is_none_which_is_for_the_authenticator_to_reject() {
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
        assert_eq!(ClientMessage::parse(&message), Ok(nobody(payload)), "{message}");
    }
}

/// An object of AUTHENTICATE in all its glory, and what is wrong with one.
#[test]
fn an_object_says_who_from_where_and_what_for() {
    let id = NodeId::new(7).session(8);
    let token = ResumeToken::new([0xab; 32]);
    let (name, resume, ids) =
        (|text: &str| Some(DisplayName::parse(text).unwrap()), token.text(), vec![id.to_string(); 100]);
    let ask =
        |ask: AuthenticateOptions| Ok(ClientMessage::AuthenticateWith(Credential::User("ada".into()), Box::new(ask)));
    let full =
        AuthenticateOptions { device: name("é"), label: name("x y"), resume: Some(token), evict: Some(Evict::Oldest) };
    let these = |count| AuthenticateOptions {
        evict: Some(Evict::Sessions(vec![id; count].into())),
        ..AuthenticateOptions::default()
    };
    let bad = |error| Err(RequestError::BadOptions(error));
    for (fields, request) in [
        (json!({"device": "é", "label": "x y", "resume": resume, "evict": "oldest"}), ask(full)),
        (
            json!({"device": null, "label": null, "resume": null, "evict": null, "token": null}),
            ask(AuthenticateOptions::default()),
        ),
        (json!({"more": {"user": ["x"]}, "devices": 7}), ask(AuthenticateOptions::default())),
        (json!({"evict": [id.to_string()]}), ask(these(1))),
        (json!({"evict": ids}), ask(these(100))),
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
        if let Ok(request) = request {
            assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
        }
    }
    for twice in [r#""user":"eve""#, r#""evict":null,"evict":"oldest""#, r#""resume":1,"resume":2"#] {
        let message = format!(r#"{{"type":"AUTHENTICATE","payload":{{"user":"ada",{twice}}}}}"#);
        assert_eq!(ClientMessage::parse(&message), Err(RequestError::DuplicateKey), "{message}");
    }
    // However deep, it costs no stack.
    let deep = format!(r#"{{"type":"AUTHENTICATE","payload":{{"evict":[{}"#, "[".repeat(100_000));
    assert_eq!(ClientMessage::parse(&deep), Err(RequestError::NotJson));
}

#[test]
fn sessions_are_listed_and_ended_by_messages_of_their_own() {
    let id = NodeId::new(7).session(8);
    for (message, request) in [
        (r#"{"type":"LIST_SESSIONS"}"#.to_owned(), Ok(ClientMessage::ListSessions)),
        (r#"{"type":"LIST_SESSIONS","payload":null}"#.into(), Ok(ClientMessage::ListSessions)),
        (r#"{"type":"LIST_SESSIONS","payload":{}}"#.into(), Err(RequestError::UnwantedPayload)),
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
fn a_refusal_has_a_code_for_programs() {
    let limit = |slots| SlotLimit::new(slots).ok();
    for (failure, limit, code) in [
        (AuthenticateFailure::LimitReached, limit(3), "limit_reached"),
        (AuthenticateFailure::LimitReached, None, "limit_reached"),
        (AuthenticateFailure::LimitReached, limit(0), "banned"),
        (AuthenticateFailure::DeviceFull, limit(3), "device_full"),
        (AuthenticateFailure::Credential(CredentialError::NotText), None, "credential_refused"),
        (AuthenticateFailure::AnotherUser, None, "another_user"),
        (AuthenticateFailure::Store(StoreError::Full), None, "store_unavailable"),
        (AuthenticateFailure::StoreTimedOut, None, "store_unavailable"),
        (AuthenticateFailure::Other("x".into()), None, "other"),
    ] {
        assert_eq!(failure.code(limit), code);
    }
}

/// A server of a later version may say more, and one of an earlier less.
#[test]
fn what_is_said_at_length_is_read_with_more_keys_and_with_fewer() {
    let session = "0".repeat(32);
    let admitted = json!({"type": "AUTHENTICATE_SUCCESS", "payload":
        {"id": "ada", "connections": 1, "limit": 3, "session": session, "colour": "red"}});
    let Ok(ServerMessage::AuthenticateSuccessDetailed(admission)) = ServerMessage::parse(&admitted.to_string()) else {
        panic!("it is at length")
    };
    assert_eq!((admission.resume, admission.linger), (None, Duration::ZERO));
    let denied = json!({"type": "AUTHENTICATE_FAILURE", "payload": "No", "code": "new", "colour": "red"});
    let Ok(ServerMessage::AuthenticateFailureDetailed(denial)) = ServerMessage::parse(&denied.to_string()) else {
        panic!("it is at length")
    };
    assert_eq!(
        *denial,
        AuthenticateFailureDetails {
            reason: AuthenticateFailure::Other("No".into()),
            connections: None,
            limit: None,
            sessions: None,
            retry_after: None,
            client_choice: false
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
fn a_message_cut_off_at_any_byte_is_not_json() {
    for request in
        [ClientMessage::Authenticate(Credential::new("ada\"\n")), ClientMessage::CheckConnections, ClientMessage::Bye]
    {
        let message = request.encode();
        for cut in 0..message.len() {
            assert_eq!(ClientMessage::parse(&message[..cut]), Err(RequestError::NotJson), "{}", &message[..cut]);
        }
    }
    for reply in replies() {
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
fn an_unknown_type_is_shown_up_to_64_characters() {
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

/// On a stack that would not bear recursion.
/// An AUTHENTICATE whose payload says nothing.
fn nobody(payload: &str) -> ClientMessage {
    if payload.starts_with('{') {
        ClientMessage::AuthenticateWith(Credential::None, Box::default())
    } else {
        ClientMessage::Authenticate(Credential::None)
    }
}

#[test]
fn however_deep_a_message_nests_it_costs_no_stack() {
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
            (format!(r#"{{"type":"AUTHENTICATE","payload":{value}}}"#), Ok(nobody(value))),
            (format!(r#"{{"type":"BYE","payload":{value}}}"#), Err(RequestError::UnwantedPayload)),
            (format!(r#"{{"type":"X","payload":{value}}}"#), Err(RequestError::unknown_type("X"))),
            (format!(r#"{{"x":{value},"type":"BYE"}}"#), Ok(ClientMessage::Bye)),
            (format!(r#"{{"x":{},"type":"BYE"}}"#, &value[..value.len() - 1]), Err(RequestError::NotJson)),
        ]);
    }
    // A reader of replies recurses, to a bound.
    for (message, _) in &messages {
        assert!(ServerMessage::parse(message).is_err(), "{message:.60}…");
    }
    let on_a_small_stack = thread::Builder::new().stack_size(128 * 1024).spawn(move || {
        for (message, expected) in messages {
            assert_eq!(ClientMessage::parse(&message), expected, "{message:.60}…");
        }
    });
    on_a_small_stack.unwrap().join().unwrap();
}

#[test]
fn a_client_understands_more_than_this_server_says() {
    let parsed = |frame: &str| ServerMessage::parse(frame).unwrap();
    // More keys may follow, wherever.
    let frame =
        r#"{"v":2,"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","limit":3,"connections":1},"resume":"x"}"#;
    assert_eq!(parsed(frame), ServerMessage::AuthenticateSuccess(user("ada", 1)));
    assert_eq!(parsed(r#"{"type":"HELLO","payload":"any words"}"#), ServerMessage::Hello);
    assert_eq!(parsed(r#"{"type":"BYE_SUCCESS"}"#), ServerMessage::ByeSuccess);
    // Reasons of a later server are words.
    let closed = ServerMessage::AuthenticateFailure(AuthenticateFailure::Other("We are closed on Sundays".into()));
    assert_eq!(parsed(r#"{"type":"AUTHENTICATE_FAILURE","payload":"We are closed on Sundays"}"#), closed);
    assert_eq!(parsed(&closed.encode()), closed);
    let tired = ServerMessage::Error(RequestError::Other("I am tired".into()));
    assert_eq!(parsed(r#"{"type":"ERROR","payload":"I am tired"}"#), tired);
    assert_eq!(parsed(&tired.encode()), tired);
}

#[test]
fn what_is_no_reply() {
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

#[test]
fn every_reason_prints_as_its_words() {
    for error in complaints() {
        assert_eq!(error.to_string(), error.message());
    }
    for failure in refusals() {
        assert_eq!(failure.to_string(), failure.message());
    }
}

#[test]
fn no_two_reasons_say_the_same_words() {
    let complaints: BTreeSet<_> = complaints().iter().map(|error| error.message().into_owned()).collect();
    assert_eq!(complaints.len(), self::complaints().len());
    let refusals: BTreeSet<_> = refusals().iter().map(|failure| failure.message().into_owned()).collect();
    assert_eq!(refusals.len(), self::refusals().len());
    assert_eq!(
        StoreError::ALL.to_vec(),
        successors(cause_after(None), |&cause| cause_after(Some(cause))).collect::<Vec<_>>()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_credential_comes_through(text in any_text()) {
        let request = ClientMessage::Authenticate(Credential::new(&text));
        prop_assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
    }

    #[test]
    fn any_user_and_any_words_come_through(id in any_user_id(), connections in any::<u32>(), kind in any_text(), which in 0..3) {
        let user = UserSummary { id: UserId::parse(&id).unwrap(), connections };
        let reply = match which {
            0 => ServerMessage::AuthenticateSuccess(user),
            1 => ServerMessage::CheckConnectionsSuccess(user),
            _ => ServerMessage::Error(RequestError::unknown_type(&kind)),
        };
        prop_assert_eq!(ServerMessage::parse(&reply.encode()).unwrap(), reply);
    }

    #[test]
    fn nothing_makes_a_parser_panic(text in prop_oneof![any_text(), almost_json(), almost_a_message()]) {
        let request = ClientMessage::parse(&text);
        if let Err(error) = &request {
            // However long the message, what is said about it is not.
            let reply = ServerMessage::Error(error.clone()).encode();
            prop_assert!(reply.len() < 600, "{}", reply);
        }
        if let Ok(request) = request {
            prop_assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
        }
        if let Ok(reply) = ServerMessage::parse(&text) {
            prop_assert_eq!(ServerMessage::parse(&reply.encode()).unwrap(), reply);
        }
    }

    /// Against a reader that is written the obvious way.
    #[test]
    fn any_object_means_what_a_plain_reading_says(entries in prop::collection::vec((any_key(), any_value()), 0..5)) {
        let message = entries.iter().map(|(key, value)| format!("{} : {value}", json!(key))).collect::<Vec<_>>();
        let message = format!(" {{{}}}", message.join(", "));
        let given = |key: &str| entries.iter().filter(|(name, _)| name == key).map(|(_, value)| value).collect::<Vec<_>>();
        let expected = match (given("type").len(), given("payload").len()) {
            (2.., _) | (_, 2..) => Err(RequestError::DuplicateKey),
            _ => match (given("type").first().copied().unwrap_or(&Value::Null), given("payload").first().copied()) {
                (Value::Null, _) => Err(RequestError::NoType),
                (Value::String(kind), payload) => match (&**kind, payload.unwrap_or(&Value::Null)) {
                    ("AUTHENTICATE", Value::String(text)) => Ok(ClientMessage::Authenticate(Credential::new(text))),
                    ("AUTHENTICATE", Value::Object(fields)) => {
                        Ok(ClientMessage::AuthenticateWith(match fields.get("token") {
                            Some(Value::String(token)) => Credential::Token(token.as_str().into()),
                            _ => Credential::None,
                        }, Box::default()))
                    }
                    ("AUTHENTICATE", _) => Ok(ClientMessage::Authenticate(Credential::None)),
                    ("BYE", Value::Null) => Ok(ClientMessage::Bye),
                    ("CHECK_CONNECTIONS", Value::Null) => Ok(ClientMessage::CheckConnections),
                    ("BYE" | "CHECK_CONNECTIONS", _) => Err(RequestError::UnwantedPayload),
                    (unknown, _) => Err(RequestError::UnknownType(unknown.chars().take(64).collect())),
                },
                _ => Err(RequestError::TypeNotText),
            },
        };
        prop_assert_eq!(ClientMessage::parse(&message), expected, "{}", message);
    }
}

/// Text with what JSON must escape, and what it need not.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), r#"[ -~\x00-\x1f\x7f"\\/é\u{2028}\u{feff}🦀]{0,90}"#]
}

fn any_user_id() -> impl Strategy<Value = String> {
    prop_oneof![
        r#"[ -~"\\é\u{2028}\u{feff}🦀]{1,64}"#,
        Just("x".repeat(256)),
        r"\PC{1,32}".prop_filter("bounded", |id| { id.len() <= 256 && !id.chars().any(char::is_control) })
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just("type".into()), 4 => Just("payload".into()), 1 => Just("Type".into()), 1 => any::<String>()]
}

fn any_value() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(&["AUTHENTICATE", "BYE", "CHECK_CONNECTIONS", "HELLO"][..]);
    let leaf = prop_oneof![
        6 => kind.prop_map(|kind| json!(kind)),
        3 => Just(Value::Null),
        1 => any::<bool>().prop_map(|value| json!(value)),
        1 => any::<i64>().prop_map(|value| json!(value)),
        1 => any::<u64>().prop_map(|value| json!(value)),
        1 => any::<f64>().prop_map(|value| json!(value)),
        2 => any::<String>().prop_map(|value| json!(value)),
    ];
    prop_oneof![
        8 => leaf.clone(),
        1 => prop::collection::vec(leaf.clone(), 0..3).prop_map(Value::Array),
        1 => prop::collection::btree_map(any_key(), leaf, 0..3).prop_map(|map| map.into_iter().collect()),
    ]
}

/// JSON's own words in any order.
fn almost_json() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "null",
        "true",
        "1e9",
        "-",
        " ",
        "\"type\"",
        "\"payload\"",
        "\"BYE\"",
        "\"AUTHENTICATE\"",
        "\"HELLO\"",
        "\\u0000",
        "\"\\ud800\"",
        "\u{feff}",
        "\0",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..20).prop_map(|words| words.concat())
}

/// A message with a few characters replaced.
fn almost_a_message() -> impl Strategy<Value = String> {
    let messages: Vec<_> = replies().iter().map(ServerMessage::encode).chain([ClientMessage::Bye.encode()]).collect();
    let wrong = prop::collection::vec(
        (any::<prop::sample::Index>(), prop_oneof![any::<char>(), prop::char::range(' ', '~')]),
        0..3,
    );
    (prop::sample::select(messages), wrong).prop_map(|(message, wrong)| {
        let mut characters: Vec<_> = message.chars().collect();
        for (index, character) in wrong {
            let index = index.index(characters.len());
            characters[index] = character;
        }
        characters.into_iter().collect()
    })
}

/// Everything a server can say.
fn replies() -> Vec<ServerMessage> {
    let users = [user("ada", 1), user("ada \"the\" \\ countess é🦀", u32::MAX)];
    let successes = users.iter().cloned().map(ServerMessage::AuthenticateSuccess);
    let failures = refusals().into_iter().map(ServerMessage::AuthenticateFailure);
    let ends = users.iter().cloned().map(ServerMessage::EndSessionSuccess);
    let counts = users.iter().cloned().map(ServerMessage::CheckConnectionsSuccess);
    let errors = complaints().into_iter().map(ServerMessage::Error);
    [ServerMessage::Hello]
        .into_iter()
        .chain(successes)
        .chain(failures)
        .chain([ServerMessage::ByeSuccess])
        .chain(counts)
        .chain(at_length())
        .chain(ends)
        .chain(errors)
        .collect()
}

/// What is said to those who asked at length, and of others' sessions.
fn at_length() -> Vec<ServerMessage> {
    let session = NodeId::new(0x0123_4567_89ab_cdef).session(7);
    let limit = SlotLimit::new(3).unwrap();
    let resume = Some(ResumeToken::new([0x5e; 32]));
    let admission = AuthenticateSuccessDetails {
        user: user("ada", 2),
        limit,
        session,
        resume,
        linger: Duration::from_millis(90_001),
    };
    let bare = AuthenticateSuccessDetails { resume: None, linger: Duration::ZERO, ..admission.clone() };
    let name = |text: &str| DisplayName::parse(text);
    let live = SessionInfo {
        id: session,
        device: None,
        label: None,
        since: 1_700_000_000_123,
        state: SessionState::Live,
        until: None,
    };
    let lost = SessionInfo {
        device: name("laptop \"7\""),
        label: name("é🦀"),
        state: SessionState::Lingering,
        until: Some(1_700_000_060_123),
        ..live.clone()
    };
    let sessions: Box<[_]> = [live, lost].into();
    let retry_after = Some(Duration::from_millis(1_500));
    let denial = |failure, limit| AuthenticateFailureDetails {
        reason: failure,
        limit,
        connections: None,
        sessions: None,
        retry_after: None,
        client_choice: false,
    };
    let full = AuthenticateFailureDetails {
        sessions: Some(sessions.clone()),
        retry_after,
        client_choice: true,
        ..denial(AuthenticateFailure::LimitReached, Some(limit))
    };
    vec![
        ServerMessage::AuthenticateSuccessDetailed(Box::new(admission)),
        ServerMessage::AuthenticateSuccessDetailed(Box::new(bare)),
        ServerMessage::AuthenticateFailureDetailed(Box::new(full)),
        ServerMessage::AuthenticateFailureDetailed(Box::new(denial(
            AuthenticateFailure::LimitReached,
            SlotLimit::new(0).ok(),
        ))),
        ServerMessage::AuthenticateFailureDetailed(Box::new(denial(AuthenticateFailure::StoreTimedOut, None))),
        ServerMessage::ListSessionsSuccess(Box::new(SessionList { limit: 3, connections: 2, sessions })),
        ServerMessage::ListSessionsSuccess(Box::new(SessionList { limit: 0, connections: 0, sessions: [].into() })),
        ServerMessage::Evicted(EndReason::TakenOver(name("phone")).message().into()),
        ServerMessage::Evicted(EndReason::TakenOver(None).message().into()),
        ServerMessage::Evicted(EndReason::ByUser(name("phone")).message().into()),
        ServerMessage::Evicted(EndReason::ByUser(None).message().into()),
        ServerMessage::Evicted(EndReason::ByOperator.message().into()),
    ]
}

fn user(id: &str, connections: u32) -> UserSummary {
    UserSummary { id: UserId::parse(id).unwrap(), connections }
}

fn refusals() -> Vec<AuthenticateFailure> {
    successors(refusal_after(None), |failure| refusal_after(Some(failure))).collect()
}

fn complaints() -> Vec<RequestError> {
    successors(complaint_after(None), |error| complaint_after(Some(error))).collect()
}

/// Every refusal in a row. Whoever adds one must put it in here; so with the functions below.
fn refusal_after(failure: Option<&AuthenticateFailure>) -> Option<AuthenticateFailure> {
    match failure {
        None => Some(AuthenticateFailure::LimitReached),
        Some(AuthenticateFailure::LimitReached) => Some(AuthenticateFailure::DeviceFull),
        Some(AuthenticateFailure::DeviceFull) => rejection_after(None).map(AuthenticateFailure::Credential),
        Some(&AuthenticateFailure::Credential(error)) => rejection_after(Some(error))
            .map(AuthenticateFailure::Credential)
            .or(cause_after(None).map(AuthenticateFailure::Store)),
        Some(&AuthenticateFailure::Store(cause)) => {
            Some(cause_after(Some(cause)).map_or(AuthenticateFailure::StoreTimedOut, AuthenticateFailure::Store))
        }
        Some(AuthenticateFailure::StoreTimedOut) => Some(AuthenticateFailure::AnotherUser),
        Some(AuthenticateFailure::AnotherUser) => Some(AuthenticateFailure::Other("Other words".into())),
        Some(AuthenticateFailure::Other(_)) => None,
    }
}

fn complaint_after(error: Option<&RequestError>) -> Option<RequestError> {
    match error {
        None => Some(RequestError::NotJson),
        Some(RequestError::NotJson) => Some(RequestError::NotAnObject),
        Some(RequestError::NotAnObject) => Some(RequestError::DuplicateKey),
        Some(RequestError::DuplicateKey) => Some(RequestError::NoType),
        Some(RequestError::NoType) => Some(RequestError::TypeNotText),
        Some(RequestError::TypeNotText) => Some(RequestError::UnknownType("DANCE \"é\" 🦀".into())),
        Some(RequestError::UnknownType(_)) => Some(RequestError::UnwantedPayload),
        Some(RequestError::UnwantedPayload) => Some(RequestError::BadSessionId),
        Some(RequestError::BadSessionId) => Some(RequestError::NoSuchSession),
        Some(RequestError::NoSuchSession) => Some(RequestError::OwnSession),
        Some(RequestError::OwnSession) => ask_error_after(None).map(RequestError::BadOptions),
        Some(&RequestError::BadOptions(error)) => {
            Some(ask_error_after(Some(error)).map_or(RequestError::AlreadyAuthenticated, RequestError::BadOptions))
        }
        Some(RequestError::AlreadyAuthenticated) => Some(RequestError::NotAuthenticated),
        Some(RequestError::NotAuthenticated) => Some(RequestError::RequestPending),
        Some(RequestError::RequestPending) => Some(RequestError::BinaryMessage),
        Some(RequestError::BinaryMessage) => Some(RequestError::ProtocolError),
        Some(RequestError::ProtocolError) => Some(RequestError::InvalidUtf8),
        Some(RequestError::InvalidUtf8) => Some(RequestError::MessageTooBig),
        Some(RequestError::MessageTooBig) => cause_after(None).map(RequestError::Store),
        Some(&RequestError::Store(cause)) => {
            Some(cause_after(Some(cause)).map_or(RequestError::StoreTimedOut, RequestError::Store))
        }
        Some(RequestError::StoreTimedOut) => Some(RequestError::Other("Other words".into())),
        Some(RequestError::Other(_)) => None,
    }
}

fn ask_error_after(error: Option<AuthenticateOptionsError>) -> Option<AuthenticateOptionsError> {
    match error {
        None => Some(AuthenticateOptionsError::UserAndToken),
        Some(AuthenticateOptionsError::UserAndToken) => Some(AuthenticateOptionsError::Device),
        Some(AuthenticateOptionsError::Device) => Some(AuthenticateOptionsError::Label),
        Some(AuthenticateOptionsError::Label) => Some(AuthenticateOptionsError::Resume),
        Some(AuthenticateOptionsError::Resume) => Some(AuthenticateOptionsError::Evict),
        Some(AuthenticateOptionsError::Evict) => None,
    }
}

fn rejection_after(error: Option<CredentialError>) -> Option<CredentialError> {
    match error {
        None => Some(CredentialError::NotText),
        Some(CredentialError::NotText) => Some(CredentialError::UnwantedToken),
        Some(CredentialError::UnwantedToken) => Some(CredentialError::UserId(UserIdError::Empty)),
        Some(CredentialError::UserId(UserIdError::Empty)) => Some(CredentialError::UserId(UserIdError::TooLong)),
        Some(CredentialError::UserId(UserIdError::TooLong)) => {
            Some(CredentialError::UserId(UserIdError::ControlCharacter))
        }
        Some(CredentialError::UserId(UserIdError::ControlCharacter)) => {
            token_error_after(None).map(CredentialError::Token)
        }
        Some(CredentialError::Token(error)) => token_error_after(Some(error)).map(CredentialError::Token),
    }
}

fn token_error_after(error: Option<TokenError>) -> Option<TokenError> {
    match error {
        None => Some(TokenError::Missing),
        Some(TokenError::Missing) => Some(TokenError::Malformed),
        Some(TokenError::Malformed) => Some(TokenError::Algorithm),
        Some(TokenError::Algorithm) => Some(TokenError::Critical),
        Some(TokenError::Critical) => Some(TokenError::NoKeyId),
        Some(TokenError::NoKeyId) => Some(TokenError::UnknownKey),
        Some(TokenError::UnknownKey) => Some(TokenError::Signature),
        Some(TokenError::Signature) => Some(TokenError::DuplicateClaim),
        Some(TokenError::DuplicateClaim) => Some(TokenError::NoExpiry),
        Some(TokenError::NoExpiry) => Some(TokenError::Expired),
        Some(TokenError::Expired) => Some(TokenError::NotYetValid),
        Some(TokenError::NotYetValid) => Some(TokenError::Audience),
        Some(TokenError::Audience) => Some(TokenError::Issuer),
        Some(TokenError::Issuer) => Some(TokenError::ClaimType),
        Some(TokenError::ClaimType) => Some(TokenError::NoUser),
        Some(TokenError::NoUser) => Some(TokenError::Limit),
        Some(TokenError::Limit) => Some(TokenError::Device),
        Some(TokenError::Device) => Some(TokenError::NoDevice),
        Some(TokenError::NoDevice) => None,
    }
}

fn cause_after(cause: Option<StoreError>) -> Option<StoreError> {
    match cause {
        None => Some(StoreError::Overloaded),
        Some(StoreError::Overloaded) => Some(StoreError::Full),
        Some(StoreError::Full) => Some(StoreError::Failed),
        Some(StoreError::Failed) => None,
    }
}

fn close_reason_after(reason: Option<CloseReason>) -> Option<CloseReason> {
    match reason {
        None => Some(CloseReason::Bye),
        Some(CloseReason::Bye) => Some(CloseReason::ShuttingDown),
        Some(CloseReason::ShuttingDown) => Some(CloseReason::ProtocolError),
        Some(CloseReason::ProtocolError) => Some(CloseReason::BinaryMessage),
        Some(CloseReason::BinaryMessage) => Some(CloseReason::InvalidUtf8),
        Some(CloseReason::InvalidUtf8) => Some(CloseReason::TooManyBadMessages),
        Some(CloseReason::TooManyBadMessages) => Some(CloseReason::TooManyMessages),
        Some(CloseReason::TooManyMessages) => Some(CloseReason::MessageTooBig),
        Some(CloseReason::MessageTooBig) => Some(CloseReason::Internal),
        Some(CloseReason::Internal) => Some(CloseReason::TryAgainLater),
        Some(CloseReason::TryAgainLater) => Some(CloseReason::NotAuthenticated),
        Some(CloseReason::NotAuthenticated) => Some(CloseReason::TokenExpired),
        Some(CloseReason::TokenExpired) => Some(CloseReason::PeerSilent),
        Some(CloseReason::PeerSilent) => Some(CloseReason::Evicted),
        Some(CloseReason::Evicted) => Some(CloseReason::Resumed),
        Some(CloseReason::Resumed) => None,
    }
}

/// The text between brackets, with what cannot be seen spelled out as `\u{…}`.
fn visible(text: &str) -> String {
    let seen = |character: char| match character {
        ' '..='~' | 'é' | '🦀' => character.to_string(),
        hidden => hidden.escape_unicode().to_string(),
    };
    format!("«{}»", text.chars().map(seen).collect::<String>())
}
