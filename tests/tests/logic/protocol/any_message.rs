//! Any text as a message.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use proptest::prelude::*;
use serde_json::{Value, json};
use session_core::UserId;
use session_core::protocol::AuthenticateOptions;
use session_core::protocol::{ClientMessage, Credential, RequestError, ServerMessage, UserSummary};

use super::all_values::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_credential_survives_encoding(text in any_text()) {
        let request = ClientMessage::Authenticate(Credential::new(&text));
        prop_assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
    }

    #[test]
    fn any_user_and_error_survive_encoding(id in any_user_id(), connections in any::<u32>(), kind in any_text(), which in 0..3) {
        let user = UserSummary { id: UserId::parse(&id).unwrap(), connections };
        let reply = match which {
            0 => ServerMessage::AuthenticateSuccess(user),
            1 => ServerMessage::CheckConnectionsSuccess(user),
            _ => ServerMessage::Error(RequestError::unknown_type(&kind)),
        };
        prop_assert_eq!(ServerMessage::parse(&reply.encode()).unwrap(), reply);
    }

    #[test]
    fn parsers_never_panic(text in prop_oneof![any_text(), almost_json(), almost_a_message()]) {
        let request = ClientMessage::parse(&text);
        if let Err(error) = &request {
            // The error about a long message is short.
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

    /// Compares the parser with a naive reader.
    #[test]
    fn any_message_parses_like_a_naive_reader(entries in prop::collection::vec((any_key(), any_value()), 0..5)) {
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
                        }, {
                            let mut ignored: Vec<Box<str>> = Vec::new();
                            for key in fields.keys().filter(|key| *key != "token") {
                                let shown: Box<str> = key.chars().take(64).collect();
                                if ignored.len() < 8 && !ignored.contains(&shown) {
                                    ignored.push(shown);
                                }
                            }
                            Box::new(AuthenticateOptions { ignored: ignored.into(), ..AuthenticateOptions::default() })
                        }))
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

/// Text with characters that JSON must escape, and others.
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

/// Tokens of JSON in any order.
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
    let messages: Vec<_> =
        server_messages().iter().map(ServerMessage::encode).chain([ClientMessage::Bye.encode()]).collect();
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
