//! The texts of all messages, close reasons and errors, as snapshots.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::iter::successors;
use std::time::Duration;

use session_core::ledger::{Evict, StoreError};
use session_core::protocol::{
    AuthenticateFailure, AuthenticateOptions, ClientMessage, CloseReason, Credential, MESSAGES, MessageType, Reconnect,
    RequestError, Sender, ServerMessage,
};
use session_core::{DisplayName, NodeId, ResumeToken};

use super::all_values::*;

#[test]
fn every_server_message() {
    let mut table = String::new();
    for reply in server_messages() {
        writeln!(table, "{reply:?}\n    {}", reply.encode()).unwrap();
        assert_eq!(ServerMessage::parse(&reply.encode()).unwrap(), reply);
    }
    insta::assert_snapshot!(table);
}

#[test]
fn every_client_message() {
    let mut table = String::new();
    for request in client_messages() {
        writeln!(table, "{request:?}\n    {}", visible(&request.encode())).unwrap();
        assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
    }
    insta::assert_snapshot!(table);
}

fn client_messages() -> impl Iterator<Item = ClientMessage> {
    let credentials = ["ada", "", "ada \"the\" \\ countess", "é🦀\u{2028}", "\0\n\u{7f}"];
    let credentials = credentials.map(Credential::new).into_iter().chain([Credential::None]);
    let requests = credentials.map(ClientMessage::Authenticate);
    let session = NodeId::new(7).session(8);
    let options = AuthenticateOptions {
        device: DisplayName::parse("laptop"),
        label: DisplayName::parse("é \"7\""),
        resume: Some(ResumeToken::new([0x5e; 32])),
        evict: Some(Evict::Oldest),
        must_resume: true,
        wait: Some(Duration::from_millis(30_000)),
        ..AuthenticateOptions::default()
    };
    let sessions =
        AuthenticateOptions { evict: Some(Evict::Sessions([session].into())), ..AuthenticateOptions::default() };
    let with_options = [
        (Credential::Token("a.b.c".into()), AuthenticateOptions::default()),
        (Credential::User("ada".into()), options),
        (Credential::None, sessions),
        (Credential::None, AuthenticateOptions { evict: Some(Evict::Nobody), ..AuthenticateOptions::default() }),
    ];
    let with_options =
        with_options.map(|(credential, options)| ClientMessage::AuthenticateWith(credential, Box::new(options)));
    let others = [
        ClientMessage::CheckConnections,
        ClientMessage::ListSessions(None),
        ClientMessage::ListSessions(Some(true)),
        ClientMessage::ListSessions(Some(false)),
        ClientMessage::EndSession(session),
        ClientMessage::Ping,
        ClientMessage::Bye,
    ];
    requests.chain(with_options).chain(others)
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
    4403 No session was chosen in time
    4408 Peer was silent for too long
    4409 The slot of this session was taken away
    4410 The session goes on on another connection
    4411 Two clients resume the same session
    ");

    let by_client: Vec<_> = listed.iter().filter(|reason| reason.is_by_client()).collect();
    assert_eq!(by_client, [&CloseReason::Bye], "after any other close its client is served until it is told");
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

/// The table of close codes as the documentation has it.
fn close_code_table() -> String {
    let mut table = String::from("| code | because | reconnect? | its slot |\n|---|---|---|---|\n");
    let codes: BTreeSet<_> = CloseReason::ALL.iter().map(|reason| reason.code()).collect();
    for code in codes {
        let meanings: Vec<_> = CloseReason::with_code(code).map(CloseReason::meaning).collect();
        let slots: BTreeSet<_> = CloseReason::with_code(code).map(|reason| reason.slot_after().to_string()).collect();
        let slots: Vec<_> = slots.into_iter().collect();
        let reconnect = Reconnect::after_code(code);
        writeln!(table, "| {code} | {} | {reconnect} | {} |", meanings.join(". Or "), slots.join(", ")).unwrap();
    }
    table
}

/// The table of messages as the documentation has it.
fn message_table() -> String {
    let mut table = String::from("| direction | type | payload |\n|---|---|---|\n");
    for MessageType { sender, name, payload } in MESSAGES {
        writeln!(table, "| {sender} | `{name}` | {payload} |").unwrap();
    }
    table
}

#[test]
fn documented_messages_are_those_of_the_table() {
    let table = message_table();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/src/protocol/messages.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(page, &table).unwrap();
    }
    let written = std::fs::read_to_string(page).unwrap();
    assert_eq!(written, table, "UPDATE_PAGES=1 cargo test --test logic documented_messages writes it");
    let readme = include_str!("../../../../README.md");
    assert!(readme.contains(&format!("\n{table}\n")), "README must have this table:\n{table}");
    // Each message that there is has a row, and each row a message.
    let kind =
        |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["type"].as_str().unwrap().to_owned();
    let of = |sender| -> BTreeSet<_> {
        MESSAGES.iter().filter(|row| row.sender == sender).map(|row| row.name.to_owned()).collect()
    };
    let sent: BTreeSet<_> = server_messages().iter().map(|message| kind(&message.encode())).collect();
    assert_eq!(of(Sender::Server), sent);
    for name in of(Sender::Client) {
        let answer = ClientMessage::parse(&format!(r#"{{"type":"{name}","payload":7}}"#));
        assert!(!matches!(answer, Err(RequestError::UnknownType(_))), "{name}");
    }
    let sent: BTreeSet<_> = client_messages().map(|message| kind(&message.encode())).collect();
    assert_eq!(of(Sender::Client), sent);
}

#[test]
fn documented_failures_are_those_of_the_table() {
    let mut table = String::from("| code | because |\n|---|---|\n");
    let mut meanings = BTreeMap::new();
    for failure in successors(failure_after(None), |failure| failure_after(Some(failure))) {
        let (code, meaning) = (failure.code(), failure.meaning());
        match meanings.insert(code, meaning) {
            Some(other) => assert_eq!(meaning, other, "{code}"),
            // A server never sends it.
            None if matches!(failure, AuthenticateFailure::Other(_)) => {}
            None => writeln!(table, "| `{code}` | {meaning} |").unwrap(),
        }
    }
    let readme = include_str!("../../../../README.md");
    assert!(readme.contains(&format!("\n{table}\n")), "README must have this table:\n{table}");
}

#[test]
fn documented_close_codes_are_those_of_the_table() {
    let table = close_code_table();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/src/protocol/close_codes.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(page, &table).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(page).unwrap(),
        table,
        "UPDATE_PAGES=1 cargo test --test logic close_codes writes it"
    );
    let readme = include_str!("../../../../README.md");
    assert!(readme.contains(&format!("\n{table}\n")), "README must have this table:\n{table}");
    let kept = CloseReason::ALL.into_iter().filter(|reason| reason.keeps_slot());
    let kept: Vec<_> = kept.map(|reason| reason.code().to_string()).collect();
    assert!(readme.contains(&format!("After {} or a lost socket the slot lingers", kept.join(", "))), "{kept:?}");
}

#[test]
fn advice_after_a_close_says_what_reconnecting_does() {
    for reason in CloseReason::ALL {
        let of_code: BTreeSet<_> =
            CloseReason::with_code(reason.code()).map(|reason| reason.reconnect().to_string()).collect();
        assert_eq!(of_code.len(), 1, "a client sees only the code: {reason}");
        let says_again = reason.advice().contains("again");
        match reason.reconnect() {
            // It may say "again" only to warn of it.
            Reconnect::Never => {
                let is_for_people =
                    ["by itself", "when the person asks"].iter().any(|words| reason.advice().contains(words));
                assert!(!says_again || is_for_people, "{reason}");
            }
            Reconnect::Immediately | Reconnect::WithBackoff | Reconnect::WithFreshToken => {
                assert!(says_again, "{reason}");
            }
        }
        if reason.is_slot_lost() {
            assert_eq!(reason.reconnect(), Reconnect::Never, "it would evict another session, and so on: {reason}");
            assert!(!reason.keeps_slot(), "{reason}");
        }
    }
    assert_eq!(Reconnect::after_code(4999), Reconnect::Never);
    assert_eq!(CloseReason::with_code(1005).count(), 0);
}

/// The error for each kind of invalid message.
#[test]
fn every_request_error() {
    let mut table = String::new();
    for (title, messages) in invalid_messages() {
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
fn invalid_messages() -> Vec<(&'static str, Vec<&'static str>)> {
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

#[test]
fn every_reason_displays_its_message() {
    for error in request_errors() {
        assert_eq!(error.to_string(), error.message());
    }
    for failure in failures() {
        assert_eq!(failure.to_string(), failure.message());
    }
}

#[test]
fn every_reason_has_its_own_message() {
    let request_errors: BTreeSet<_> = request_errors().iter().map(|error| error.message().into_owned()).collect();
    assert_eq!(request_errors.len(), self::request_errors().len());
    let failures: BTreeSet<_> = failures().iter().map(|failure| failure.message().into_owned()).collect();
    assert_eq!(failures.len(), self::failures().len());
    assert_eq!(
        StoreError::ALL.to_vec(),
        successors(store_error_after(None), |&error| store_error_after(Some(error))).collect::<Vec<_>>()
    );
}

/// The text in quotation marks, with invisible characters as `\u{…}`.
fn visible(text: &str) -> String {
    let seen = |character: char| match character {
        ' '..='~' | 'é' | '🦀' => character.to_string(),
        hidden => hidden.escape_unicode().to_string(),
    };
    format!("«{}»", text.chars().map(seen).collect::<String>())
}
