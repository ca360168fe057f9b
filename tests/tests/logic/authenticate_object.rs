//! AUTHENTICATE with an object, and the detailed answers, key by key.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use session_core::SlotId;
use session_core::ledger::{Evict, SessionRecord, SessionStatus, SlotLimit, StoreError};
use session_core::ledger::{NotResumed, Resumption};
use session_core::protocol::{
    AuthenticateFailure, AuthenticateFailureDetails, AuthenticateOptions, AuthenticateOptionsError,
    AuthenticateSuccessDetails, ClientMessage, CloseReason, Credential, CredentialError, RequestError, ServerMessage,
    ServerMessageError, SessionSummary, StatusWord, TokenError, UserSummary,
};
use session_core::{DisplayName, NodeId, ResumeToken, SessionId, Timestamp, UserId};
use tests::values::{on_a_small_stack, without_ignored};

fn session(number: u64) -> SessionId {
    NodeId::new(0xada).session(number)
}

fn parse_authenticate(payload: &str) -> Result<ClientMessage, RequestError> {
    ClientMessage::parse(&format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#))
}

/// As [`parse_authenticate`], where the keys that are ignored do not matter.
fn parse_known(payload: &str) -> Result<ClientMessage, RequestError> {
    parse_authenticate(payload).map(without_ignored)
}

fn options(credential: Credential, options: AuthenticateOptions) -> Result<ClientMessage, RequestError> {
    Ok(ClientMessage::AuthenticateWith(credential, Box::new(options)))
}

#[test]
fn object_may_hold_user_or_token() {
    let token = |text: &str| options(Credential::Token(text.into()), AuthenticateOptions::default());
    let user = |text: &str| options(Credential::User(text.into()), AuthenticateOptions::default());
    let none = || options(Credential::None, AuthenticateOptions::default());
    for (payload, request) in [
        (r#"{"token":"a.b.c"}"#, token("a.b.c")),
        (r#"{"x":{"token":"y"},"tok\u0065n":"\u0061.b","x":1}"#, token("a.b")),
        (r#"{"token":""}"#, token("")),
        (r#"{"user":"ada"}"#, user("ada")),
        (r#"{"\u0075ser":"\u0061da","Token":"x"}"#, user("ada")),
        // A value that is null, or no string, counts as absent.
        (r#"{"user":"ada","token":null}"#, user("ada")),
        (r#"{"user":null,"token":"a.b.c"}"#, token("a.b.c")),
        (r#"{"user":7,"token":"a.b.c"}"#, token("a.b.c")),
        (r#"{"user":null,"token":null,"device":null,"label":null,"resume":null,"evict":null}"#, none()),
        ("{}", none()),
        (r#"{"id":"ada"}"#, none()),
        (r#"{"token":7}"#, none()),
        (r#"{"token":{"token":"ada"}}"#, none()),
        (r#"{"user":["ada"]}"#, none()),
        (r#"{"user":"ada","token":"a.b.c"}"#, Err(RequestError::BadOptions(AuthenticateOptionsError::UserAndToken))),
        (r#"{"token":"","user":""}"#, Err(RequestError::BadOptions(AuthenticateOptionsError::UserAndToken))),
        (r#"{"token":"a""#, Err(RequestError::NotJson)),
    ] {
        assert_eq!(parse_known(payload), request, "{payload}");
    }
}

#[test]
fn known_key_twice_is_an_error() {
    for key in ["user", "token", "device", "label", "resume", "evict"] {
        for (first, second) in [("null", "null"), ("null", r#""x""#), (r#""x""#, r#""x""#), ("[]", "{}"), ("1", "2")] {
            let payload = format!(r#"{{"{key}":{first},"y":1,"{key}":{second},"y":2}}"#);
            assert_eq!(parse_authenticate(&payload), Err(RequestError::DuplicateKey), "{payload}");
            // Also on a message that takes no payload.
            let message = format!(r#"{{"type":"BYE","payload":{payload}}}"#);
            assert_eq!(ClientMessage::parse(&message), Err(RequestError::DuplicateKey), "{message}");
        }
    }
}

#[test]
fn client_fields_are_bounded() {
    let accepted = |fields| options(Credential::User("ada".into()), fields);
    let wrong = |error| Err(RequestError::BadOptions(error));
    let token = ResumeToken::new([0xcd; 32]);
    for (fields, expected) in [
        (
            json!({ "device": "é".repeat(32) }),
            accepted(AuthenticateOptions {
                device: DisplayName::parse(&"é".repeat(32)),
                ..AuthenticateOptions::default()
            }),
        ),
        (json!({ "device": format!("{}x", "é".repeat(64)) }), wrong(AuthenticateOptionsError::Device)),
        (json!({ "device": "" }), wrong(AuthenticateOptionsError::Device)),
        (json!({ "device": "a\u{85}" }), wrong(AuthenticateOptionsError::Device)),
        (json!({ "device": 7 }), wrong(AuthenticateOptionsError::Device)),
        (json!({ "device": ["laptop"] }), wrong(AuthenticateOptionsError::Device)),
        (
            json!({ "label": "x".repeat(64) }),
            accepted(AuthenticateOptions {
                label: DisplayName::parse(&"x".repeat(64)),
                ..AuthenticateOptions::default()
            }),
        ),
        (
            json!({ "label": "x".repeat(65) }),
            accepted(AuthenticateOptions {
                label: DisplayName::parse(&"x".repeat(64)),
                is_label_cut: true,
                ..AuthenticateOptions::default()
            }),
        ),
        (json!({ "label": "\0" }), wrong(AuthenticateOptionsError::Label)),
        (json!({ "label": false }), wrong(AuthenticateOptionsError::Label)),
        (json!({ "label": { "text": "x" } }), wrong(AuthenticateOptionsError::Label)),
        (
            json!({ "resume": "cd".repeat(32) }),
            accepted(AuthenticateOptions { resume: Some(token), ..AuthenticateOptions::default() }),
        ),
        (json!({ "resume": "CD".repeat(32) }), wrong(AuthenticateOptionsError::Resume)),
        (json!({ "resume": "cd".repeat(31) }), wrong(AuthenticateOptionsError::Resume)),
        (json!({ "resume": "" }), wrong(AuthenticateOptionsError::Resume)),
        (json!({ "resume": ["cd".repeat(32)] }), wrong(AuthenticateOptionsError::Resume)),
        (json!({ "resume": -1 }), wrong(AuthenticateOptionsError::Resume)),
    ] {
        let mut payload = fields.clone();
        payload["user"] = json!("ada");
        assert_eq!(parse_authenticate(&payload.to_string()), expected, "{payload}");
    }
}

#[test]
fn evict_takes_oldest_nobody_or_100_sessions() {
    let id = |number: u64| json!(session(number).to_string());
    let ids = |count: u64| (0..count).map(id).collect::<Vec<_>>();
    let sessions = |numbers: &[u64]| Some(Evict::Sessions(numbers.iter().map(|&number| session(number)).collect()));
    for (evict, expected) in [
        (json!("oldest"), Some(Evict::Oldest)),
        (json!("nobody"), Some(Evict::Nobody)),
        (json!([id(1)]), sessions(&[1])),
        // In this order, and with duplicates.
        (json!([id(2), id(1), id(2)]), sessions(&[2, 1, 2])),
        (json!(ids(100)), sessions(&(0..100).collect::<Vec<_>>())),
        (json!(ids(101)), None),
        (json!(ids(5000)), None),
        (json!([]), None),
        (json!("Oldest"), None),
        (json!("NOBODY"), None),
        (json!(""), None),
        (json!("newest"), None),
        (id(1), None),
        (json!([null]), None),
        (json!([id(1), 7]), None),
        (json!([id(1), null]), None),
        (json!([id(1), "oldest"]), None),
        (json!([[id(1)]]), None),
        (json!([{ "id": id(1) }]), None),
        (json!({ "oldest": true }), None),
        (json!(1), None),
        (json!(true), None),
        (json!(1.5), None),
    ] {
        let payload = json!({ "user": "ada", "evict": evict });
        let expected = match expected {
            Some(evict) => options(
                Credential::User("ada".into()),
                AuthenticateOptions { evict: Some(evict), ..AuthenticateOptions::default() },
            ),
            None => Err(RequestError::BadOptions(AuthenticateOptionsError::Evict)),
        };
        assert_eq!(parse_authenticate(&payload.to_string()), expected, "{payload}");
    }
    assert_eq!(Evict::MAX, 100);
}

/// Recursion would overflow the stack.
#[test]
fn deeply_nested_field_needs_no_stack() {
    const DEPTH: usize = 100_000;
    let wrong = |error| Err(RequestError::BadOptions(error));
    let mut messages = Vec::new();
    for (open, close) in [("[", "]"), (r#"{"evict":"#, "}")] {
        let value = format!("{}null{}", open.repeat(DEPTH), close.repeat(DEPTH));
        messages.extend([
            (format!(r#"{{"user":{value}}}"#), options(Credential::None, AuthenticateOptions::default())),
            (format!(r#"{{"x":{value}}}"#), options(Credential::None, AuthenticateOptions::default())),
            (format!(r#"{{"device":{value}}}"#), wrong(AuthenticateOptionsError::Device)),
            (format!(r#"{{"label":{value}}}"#), wrong(AuthenticateOptionsError::Label)),
            (format!(r#"{{"resume":{value}}}"#), wrong(AuthenticateOptionsError::Resume)),
            (format!(r#"{{"evict":{value}}}"#), wrong(AuthenticateOptionsError::Evict)),
            (format!(r#"{{"evict":["{}",{value}]}}"#, session(1)), wrong(AuthenticateOptionsError::Evict)),
            (format!(r#"{{"evict":{}"#, open.repeat(DEPTH)), Err(RequestError::NotJson)),
        ]);
    }
    on_a_small_stack(move || {
        for (payload, expected) in messages {
            assert_eq!(parse_known(&payload), expected, "{payload:.60}…");
        }
    });
}

#[test]
fn credentials_and_resume_tokens_are_never_printed() {
    for (credential, shown) in [
        (Credential::Token("hunter2".into()), "Credential(token, 7 bytes)"),
        (Credential::User("hunter2".into()), "Credential(user, 7 bytes)"),
        (Credential::None, "Credential(none)"),
    ] {
        let options =
            AuthenticateOptions { resume: Some(ResumeToken::new([0xcd; 32])), ..AuthenticateOptions::default() };
        let printed = format!("{:?}", ClientMessage::AuthenticateWith(credential, Box::new(options)));
        assert!(printed.starts_with(&format!("AuthenticateWith({shown}, ")), "{printed}");
        assert!(printed.contains("resume: Some(ResumeToken(…))") && !printed.contains("cd"), "{printed}");
    }
    assert!(!format!("{:?}", admitted()).contains("cd"));
}

#[test]
fn only_shutdown_and_silence_keep_the_slot() {
    let lingering: Vec<_> = CloseReason::ALL.into_iter().filter(|reason| reason.keeps_slot()).collect();
    assert_eq!(lingering, [CloseReason::ShuttingDown, CloseReason::TokenExpired, CloseReason::PeerSilent]);
}

/// A detailed message has its text where the plain message has it.
#[test]
fn detailed_messages_have_these_bytes() {
    let digits = "0000000000000ada0000000000000007";
    let token = "cd".repeat(32);
    for (reply, frame) in [
        (
            admitted(),
            format!(
                r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"ada","connections":2,"limit":3,"session":"{digits}","slot":"0000000000000ada0000000000000002","since":1700000000250,"resumed":true,"resume":"{token}","linger_ms":30000,"ping_interval_ms":20000,"pong_timeout_ms":10000}}}}"#
            ),
        ),
        (
            ServerMessage::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
                reason: AuthenticateFailure::LimitReached,
                limit: Some(SlotLimit::new(1).unwrap()),
                connections: Some(2),
                sessions: Some([SessionSummary::from(&SessionRecord::new(session(1), Timestamp::from_epoch(Duration::from_millis(1_700_000_000_250))))].into()),
                retry_after: Some(Duration::from_millis(1500)),
                client_choice: true,
                choose_within: Some(Duration::from_secs(60)),
                waiting: 0,
                is_line_full: false,
            })),
            [
                r#"{"type":"AUTHENTICATE_FAILURE","payload":"User has reached connection limit, no more connections allowed","#,
                r#""code":"limit_reached","limit":1,"connections":2,"sessions":[{"id":"0000000000000ada0000000000000001","#,
                r#""since":1700000000250,"state":"live"}],"retry_after_ms":1500,"choice":true,"choose_within_ms":60000}"#,
            ]
            .concat(),
        ),
        (ServerMessage::Evicted("words".into()), r#"{"type":"EVICTED","payload":"words"}"#.into()),
        (
            ServerMessage::EndSessionSuccess(UserSummary { id: UserId::parse("ada").unwrap(), connections: 1 }),
            r#"{"type":"END_SESSION_SUCCESS","payload":{"id":"ada","connections":1}}"#.into(),
        ),
    ] {
        assert_eq!(reply.encode(), frame);
        assert_eq!(ServerMessage::parse(&frame).unwrap(), reply);
    }
}

fn admitted() -> ServerMessage {
    ServerMessage::AuthenticateSuccessDetailed(Box::new(AuthenticateSuccessDetails {
        user: UserSummary { id: UserId::parse("ada").unwrap(), connections: 2 },
        limit: SlotLimit::new(3).unwrap(),
        session: session(7),
        slot: SlotId::new(session(2)),
        since: 1_700_000_000_250,
        resumption: Resumption::Resumed,
        resume: Some(ResumeToken::new([0xcd; 32])),
        linger: Duration::from_secs(30),
        ping_interval: Duration::from_secs(20),
        pong_timeout: Duration::from_secs(10),
        cut_label: None,
        ended: [].into(),
        ignored: [].into(),
    }))
}

#[test]
fn session_info_shows_no_token() {
    let since = Timestamp::from_epoch(Duration::from_nanos(5_999_999));
    let live = SessionRecord::new(session(1), since);
    let lingering =
        SessionRecord { status: SessionStatus::Lingering { until: since + Duration::from_secs(1) }, ..live.clone() };
    let shown = |entry: &SessionRecord| serde_json::to_string(&SessionSummary::from(entry)).unwrap();
    assert_eq!(shown(&live), r#"{"id":"0000000000000ada0000000000000001","since":5,"state":"live"}"#);
    let frame = r#"{"id":"0000000000000ada0000000000000001","since":5,"state":"lingering","until":1005}"#;
    assert_eq!(shown(&lingering), frame);
}

#[test]
fn malformed_detailed_message_is_an_error() {
    for frame in [
        r#"{"type":"AUTHENTICATE_FAILURE","payload":"x","code":"x","limit":1025}"#,
        r#"{"type":"AUTHENTICATE_FAILURE","payload":"x","code":"x","limit":"3"}"#,
        r#"{"type":"AUTHENTICATE_FAILURE","payload":"x","code":"x","retry_after_ms":-1}"#,
        r#"{"type":"AUTHENTICATE_FAILURE","payload":"x","code":"x","sessions":[{"id":"7","since":0,"state":"live"}]}"#,
        r#"{"type":"AUTHENTICATE_FAILURE","payload":"x","code":"x","sessions":[{"id":"0000000000000ada0000000000000007","since":0,"state":"dead"}]}"#,
        r#"{"type":"LIST_SESSIONS_SUCCESS","payload":[3,1,[]]}"#,
        r#"{"type":"LIST_SESSIONS_SUCCESS","payload":{"limit":3,"connections":1}}"#,
        r#"{"type":"END_SESSION_SUCCESS","payload":["ada",1]}"#,
        r#"{"type":"EVICTED","payload":null}"#,
        r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1,"limit":3,"session":7}}"#,
    ] {
        assert!(matches!(ServerMessage::parse(frame), Err(ServerMessageError::Malformed(_))), "{frame}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_options_survive_encoding(credential in any_credential(), options in any_options()) {
        let request = ClientMessage::AuthenticateWith(credential, Box::new(options));
        prop_assert_eq!(ClientMessage::parse(&request.encode()), Ok(request));
    }

    #[test]
    fn any_detailed_failure_survives_encoding(failure in any_failure()) {
        let reply = ServerMessage::AuthenticateFailureDetailed(Box::new(failure));
        let frame = reply.encode();
        prop_assert_eq!(ServerMessage::parse(&frame).unwrap(), reply.clone());
        // A plain client finds the text in the same place.
        let ServerMessage::AuthenticateFailureDetailed(failure) = reply else { unreachable!() };
        let frame: Value = serde_json::from_str(&frame).unwrap();
        prop_assert_eq!(&frame["type"], "AUTHENTICATE_FAILURE");
        prop_assert_eq!(&frame["payload"], &*failure.reason.message());
    }

    /// Compares the parser with a naive reader.
    #[test]
    fn any_object_parses_like_a_naive_reader(
        fields in prop::collection::btree_map(any_field(), any_field_value(), 0..7),
    ) {
        let fields: Map<_, _> = fields.into_iter().collect();
        prop_assert_eq!(parse_authenticate(&json!(fields).to_string()), plain_reading(&fields), "{:?}", fields);
    }
}

/// A naive reader of the object. No key comes twice.
fn plain_reading(fields: &Map<String, Value>) -> Result<ClientMessage, RequestError> {
    let given = |key: &str| fields.get(key).filter(|value| !value.is_null());
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    fn read<T>(
        value: Option<&Value>,
        parse: impl Fn(&str) -> Option<T>,
        error: AuthenticateOptionsError,
    ) -> Result<Option<T>, RequestError> {
        value.map(|value| value.as_str().and_then(parse).ok_or(RequestError::BadOptions(error))).transpose()
    }
    let credential = match (text("user"), text("token")) {
        (Some(_), Some(_)) => return Err(RequestError::BadOptions(AuthenticateOptionsError::UserAndToken)),
        (Some(user), None) => Credential::User(user.into()),
        (None, Some(token)) => Credential::Token(token.into()),
        (None, None) => Credential::None,
    };
    let device = read(given("device"), DisplayName::parse, AuthenticateOptionsError::Device)?;
    let label = read(given("label"), DisplayName::parse_cut, AuthenticateOptionsError::Label)?;
    let (label, is_label_cut) = label.map_or((None, false), |(label, is_cut)| (Some(label), is_cut));
    let resume = read(given("resume"), ResumeToken::parse, AuthenticateOptionsError::Resume)?;
    let evict = match given("evict") {
        None => None,
        Some(Value::String(text)) if text == "oldest" => Some(Evict::Oldest),
        Some(Value::String(text)) if text == "nobody" => Some(Evict::Nobody),
        Some(Value::Array(ids)) if (1..=100).contains(&ids.len()) => {
            let ids: Option<Vec<_>> = ids.iter().map(|id| SessionId::parse(id.as_str()?)).collect();
            Some(Evict::Sessions(ids.ok_or(RequestError::BadOptions(AuthenticateOptionsError::Evict))?.into()))
        }
        Some(_) => return Err(RequestError::BadOptions(AuthenticateOptionsError::Evict)),
    };
    let must_resume = match given("if_not_resumed") {
        None => false,
        Some(Value::String(text)) if text == "acquire" => false,
        Some(Value::String(text)) if text == "refuse" => true,
        Some(_) => return Err(RequestError::BadOptions(AuthenticateOptionsError::IfNotResumed)),
    };
    let wait = match given("wait_ms") {
        None => None,
        Some(Value::Number(number)) if number.as_u64() == Some(0) => None,
        Some(Value::Number(number)) if number.is_u64() => {
            Some(Duration::from_millis(number.as_u64().unwrap().min(3_600_000)))
        }
        Some(_) => return Err(RequestError::BadOptions(AuthenticateOptionsError::WaitMs)),
    };
    let is_known = |key: &&String| {
        ["user", "token", "device", "label", "resume", "evict", "if_not_resumed", "wait_ms"].contains(&key.as_str())
    };
    let ignored = fields.keys().filter(|key| !is_known(key)).map(|key| key.as_str().into()).collect();
    let options = AuthenticateOptions { device, label, resume, evict, must_resume, wait, is_label_cut, ignored };
    Ok(ClientMessage::AuthenticateWith(credential, Box::new(options)))
}

fn any_credential() -> impl Strategy<Value = Credential> {
    prop_oneof![
        any_text().prop_map(|user| Credential::User(user.into())),
        any_text().prop_map(|token| Credential::Token(token.into())),
        Just(Credential::None),
    ]
}

fn any_name() -> impl Strategy<Value = DisplayName> {
    r#"[ -~"\\é\u{2028}\u{feff}🦀]{1,16}"#.prop_map(|name| DisplayName::parse(&name).unwrap())
}

fn any_session() -> impl Strategy<Value = SessionId> {
    (any::<u64>(), any::<u64>()).prop_map(|(node, number)| NodeId::new(node).session(number))
}

fn any_options() -> impl Strategy<Value = AuthenticateOptions> {
    let evict = prop_oneof![
        Just(Evict::Oldest),
        Just(Evict::Nobody),
        prop::collection::vec(any_session(), 1..=100).prop_map(|sessions| Evict::Sessions(sessions.into())),
    ];
    let resume = prop::option::of(any::<[u8; 32]>().prop_map(ResumeToken::new));
    let wait = prop::option::of((1..=3_600_000_u64).prop_map(Duration::from_millis));
    (prop::option::of(any_name()), prop::option::of(any_name()), resume, prop::option::of(evict), wait).prop_map(
        |(device, label, resume, evict, wait)| AuthenticateOptions {
            must_resume: device.is_some(),
            wait,
            device,
            label,
            resume,
            evict,
            ..AuthenticateOptions::default()
        },
    )
}

fn any_failure() -> impl Strategy<Value = AuthenticateFailureDetails> {
    let known = vec![
        AuthenticateFailure::LimitReached,
        AuthenticateFailure::Banned,
        AuthenticateFailure::DeviceFull,
        AuthenticateFailure::Gone,
        AuthenticateFailure::NotResumed(NotResumed::Expired),
        AuthenticateFailure::NotResumed(NotResumed::Taken),
        AuthenticateFailure::BadOptions(AuthenticateOptionsError::Evict),
        AuthenticateFailure::AlreadyAuthenticated,
        AuthenticateFailure::AnotherUser,
        AuthenticateFailure::AnotherDevice,
        AuthenticateFailure::Credential(CredentialError::Token(TokenError::Expired)),
        AuthenticateFailure::Store(StoreError::Full),
        AuthenticateFailure::StoreTimedOut,
        AuthenticateFailure::NotChecked,
    ];
    let failure = prop_oneof![
        prop::sample::select(known),
        any_text().prop_map(|words| AuthenticateFailure::from_message(words.into()))
    ];
    let limit = prop::option::of((0..=1024_u32).prop_map(|slots| SlotLimit::new(slots).unwrap()));
    let name = || prop::option::of(any_name());
    let info = (any_session(), name(), name(), any::<u64>(), any::<Option<u64>>()).prop_map(
        |(id, device, label, since, until)| {
            let state = if until.is_some() { StatusWord::Lingering } else { StatusWord::Live };
            let (slot, is_own) = (device.is_some().then(|| SlotId::new(id)), label.is_some());
            SessionSummary { id, slot, is_own, device, label, since, state, until }
        },
    );
    let sessions = prop::option::of(prop::collection::vec(info, 0..5).prop_map(Into::into));
    let retry_after = prop::option::of(any::<u64>().prop_map(Duration::from_millis));
    (failure, limit, any::<Option<u32>>(), sessions, retry_after, any::<bool>()).prop_map(
        |(failure, limit, connections, sessions, retry_after, may_choose)| AuthenticateFailureDetails {
            choose_within: retry_after,
            reason: failure,
            limit,
            connections,
            sessions,
            retry_after,
            client_choice: may_choose,
            waiting: 0,
            is_line_full: may_choose && limit.is_none(),
        },
    )
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), r#"[ -~\x00-\x1f\x7f"\\/é\u{2028}\u{feff}🦀]{0,90}"#]
}

fn any_field() -> impl Strategy<Value = String> {
    prop::sample::select(&["user", "token", "device", "label", "resume", "evict", "if_not_resumed", "x"][..])
        .prop_map(Into::into)
}

fn any_field_value() -> impl Strategy<Value = Value> {
    let id = any_session().prop_map(|session| json!(session.to_string()));
    prop_oneof![
        2 => Just(Value::Null),
        1 => Just(json!("oldest")),
        1 => Just(json!("refuse")),
        1 => any::<bool>().prop_map(|is_cut| json!("é".repeat(if is_cut { 65 } else { 64 }))),
        1 => any::<bool>().prop_map(|value| json!(value)),
        1 => any::<i64>().prop_map(|value| json!(value)),
        1 => any_text().prop_map(|text| json!(text)),
        6 => any_name().prop_map(|name| json!(name.as_str())),
        4 => any::<[u8; 32]>().prop_map(|token| json!(ResumeToken::new(token).text())),
        3 => prop::collection::vec(id, 0..103).prop_map(Value::Array),
        1 => Just(json!([null])),
        1 => Just(json!({"user": "eve"})),
    ]
}
