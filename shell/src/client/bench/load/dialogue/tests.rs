use super::*;

use session_core::UserId;
use session_core::protocol::{AuthenticateFailure, UserSummary};

fn script() -> Script {
    Script::new("ws://h".parse().expect("a good URL"))
}

const HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A frame of a server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 126];
    frame.extend(u16::try_from(payload.len()).expect("a short payload").to_be_bytes());
    frame.extend(payload);
    frame
}

fn text(message: &ServerMessage) -> Vec<u8> {
    frame(0x81, message.encode().as_bytes())
}

fn close(code: u16) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes()[..], b"Goodbye"].concat())
}

fn granted() -> ServerMessage {
    ServerMessage::AuthenticateSuccess(UserSummary { id: UserId::parse("ada").expect("a good id"), connections: 1 })
}

/// What the client has sent, and how it went.
struct Run {
    sent: Vec<u8>,
    greeted: bool,
    answer: Option<Answer>,
    result: Result<(), Error>,
}

/// A cycle with a server that says these things, each in one piece. AUTHENTICATE follows the greeting.
#[allow(single_use_lifetimes, reason = "an anonymous one is not stable here, and nightly does not object")]
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Run {
    let script = script();
    let mut dialogue = Dialogue::default();
    let mut run = Run { sent: Vec::new(), greeted: false, answer: None, result: Ok(()) };
    for piece in pieces {
        match dialogue.receive(&script, piece, &mut run.sent) {
            Ok(heard) => {
                if heard.greeted {
                    assert!(!run.greeted, "one greeting is enough");
                    run.greeted = true;
                    dialogue.authenticate(&script, 7, &mut run.sent);
                }
                run.answer = run.answer.or(heard.answered);
            }
            Err(error) => {
                run.result = Err(error);
                return run;
            }
        }
    }
    run.result = dialogue.end(&script);
    run
}

fn failure(said: &[Vec<u8>]) -> String {
    let run = run(said.iter().map(Vec::as_slice));
    run.result.expect_err("a failed cycle").to_string()
}

/// All that a client sends in a cycle.
fn usual_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    script().write_authenticate(7, &mut bytes);
    script().write_bye(&mut bytes);
    write_frame(Opcode::Close, &[&1000_u16.to_be_bytes()], &mut bytes);
    bytes
}

#[test]
fn usual_cycle_ends_well() {
    let denial = ServerMessage::AuthenticateFailure(AuthenticateFailure::LimitReached);
    for (answer, expected) in [(granted(), Answer::Granted), (denial, Answer::Refused)] {
        let said = [
            [HEAD.as_bytes(), &text(&ServerMessage::Hello)].concat(),
            text(&answer),
            [text(&ServerMessage::ByeSuccess), close(1000)].concat(),
        ];
        let run = run(said.iter().map(Vec::as_slice));
        run.result.expect("a good cycle");
        assert_eq!((run.answer, run.sent), (Some(expected), usual_bytes()));
    }
}

#[test]
fn replies_may_be_split_anywhere() {
    let greeting = [HEAD.as_bytes(), &text(&ServerMessage::Hello)].concat();
    let rest = [text(&granted()), text(&ServerMessage::ByeSuccess), close(1000)].concat();
    let all = [greeting.clone(), rest].concat();
    let check = |pieces: &[&[u8]], how: &str| {
        let run = run(pieces.iter().copied());
        run.result.unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!((run.answer, run.sent), (Some(Answer::Granted), usual_bytes()), "{how}");
    };
    check(&all.chunks(1).collect::<Vec<_>>(), "byte by byte");
    for at in 1..all.len() {
        let (first, second) = all.split_at(at);
        // A server does not answer before it was asked.
        let (begin, answers) = second.split_at(greeting.len().saturating_sub(at));
        let (first, early) = first.split_at(at.min(greeting.len()));
        let pieces: Vec<&[u8]> = [first, begin, early, answers].into_iter().filter(|piece| !piece.is_empty()).collect();
        check(&pieces, &format!("split at {at}"));
    }
}

#[test]
fn fragments_pings_and_unknown_messages_are_taken() {
    let hello = ServerMessage::Hello.encode();
    let (first, second) = hello.as_bytes().split_at(9);
    let said = [
        HEAD.as_bytes().to_vec(),
        frame(0x01, first),
        frame(0x89, b"are you there"),
        frame(0x80, second),
        frame(0x81, br#"{"type":"NEWS"}"#),
        frame(0x82, b"\xff"),
        frame(0x8a, b""),
        text(&granted()),
        frame(0x81, br#"{"type":"BYE_LATER"}"#),
        text(&ServerMessage::ByeSuccess),
        close(1000),
    ];
    let run = run(said.iter().map(Vec::as_slice));
    run.result.expect("a good cycle");
    let mut pong = Vec::new();
    write_frame(Opcode::Pong, &[b"are you there"], &mut pong);
    assert_eq!(run.sent, [pong, usual_bytes()].concat());
}

#[test]
fn unexpected_messages_fail_the_cycle() {
    let hello = || [HEAD.as_bytes(), &text(&ServerMessage::Hello)].concat();
    for (said, expected) in [
        (vec![HEAD.into(), text(&ServerMessage::Pong)], "waiting for HELLO, the server said"),
        (vec![hello(), text(&ServerMessage::Hello)], "waiting for answer to AUTHENTICATE, the server said"),
        (vec![hello(), text(&ServerMessage::Evicted("gone".into()))], "the session was ended: gone"),
        (
            vec![hello(), text(&ServerMessage::AuthenticateFailure(AuthenticateFailure::StoreTimedOut))],
            "the holder of the token was refused",
        ),
        (vec![hello(), close(1013)], "the server closed the connection: 1013 Goodbye"),
        (vec![hello(), text(&granted()), close(4409)], "the server closed the connection: 4409"),
        (vec![hello(), text(&granted()), text(&ServerMessage::ByeSuccess), close(1011)], "closed the connection: 1011"),
        (
            vec![hello(), text(&granted()), text(&ServerMessage::ByeSuccess), frame(0x88, b"")],
            "closed the connection: 1005",
        ),
        (
            vec![hello(), text(&granted()), text(&ServerMessage::ByeSuccess), close(1000), frame(0x81, b"{}")],
            "a frame after its close frame",
        ),
        (vec![hello(), frame(0x80, b"a")], "a message has no beginning"),
        (vec![hello(), frame(0x01, b"a"), frame(0x81, b"b")], "a message began within another one"),
        (vec![hello(), vec![0xff, 0xff]], "the server broke the rules of WebSocket"),
    ] {
        let error = failure(&said);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn early_end_fails_the_cycle() {
    let hello = [HEAD.as_bytes(), &text(&ServerMessage::Hello)].concat();
    let lost = "the server went away without a word";
    for (said, expected) in [
        (vec![], "it hung up before it answered"),
        (vec![HEAD.as_bytes()[..9].to_vec()], "its answer is too long, or breaks off"),
        (vec![HEAD.into()], lost),
        (vec![hello.clone()], lost),
        (vec![hello.clone(), text(&granted())], lost),
        (vec![hello, text(&granted()), text(&ServerMessage::ByeSuccess)], lost),
    ] {
        let error = failure(&said);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn other_answers_than_101_are_read_as_by_the_client() {
    let refusal = "HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 18\r\n\r\n{\"message\":\"Full\"}";
    let expected = "no WebSocket at ws://h/: it answered HTTP 503 Service Unavailable: \"Full\"; try again in 7 s";
    for at in 1..refusal.len() {
        let (first, second) = refusal.as_bytes().split_at(at);
        assert_eq!(failure(&[first.to_vec(), second.to_vec()]), expected, "split at {at}");
    }
    for (said, expected) in [
        ("SSH-2.0-server\r\n", "httparse error: invalid HTTP version"),
        ("\u{15}\u{3}\u{3}", "it speaks TLS; try wss://"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "No \"Upgrade: websocket\" header"),
        (&HEAD.replace("xOo", "xOO"), "Key mismatch"),
        (&format!("HTTP/1.1 101 No\r\nA: {}", "b".repeat(20_000)), "its answer is too long"),
        ("HTTP/1.1 404 No\r\n\r\n{\"message\":\"Nothing", "it answered HTTP 404 Not Found; check"),
    ] {
        let error = failure(&[said.as_bytes().to_vec()]);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn slow_refusal_is_not_awaited() {
    let script = script();
    let mut dialogue = Dialogue::default();
    let head = b"HTTP/1.1 403 No\r\nContent-Length: 99\r\n\r\n{\"message\":\"You\"}";
    let heard = dialogue.receive(&script, head, &mut Vec::new()).expect("more may come");
    assert_eq!(heard, Heard { refused: true, ..Heard::default() });
    let error = dialogue.stop_reading(&script).to_string();
    assert!(error.contains("HTTP 403 Forbidden: \"You\"; "), "{error}");
}

#[test]
fn session_that_stays_leaves_or_is_evicted() {
    let script = script();
    let greeting = [HEAD.as_bytes(), &text(&ServerMessage::Hello)].concat();
    for is_evicted in [false, true] {
        let (mut dialogue, mut sent) = (Dialogue::staying(), Vec::new());
        let mut receive = |dialogue: &mut Dialogue, bytes: &[u8]| {
            let heard = dialogue.receive(&script, bytes, &mut sent).expect("a good server");
            (heard, mem::take(&mut sent))
        };
        let (heard, _) = receive(&mut dialogue, &greeting);
        assert!(heard.greeted);
        dialogue.authenticate(&script, 7, &mut Vec::new());
        let (heard, sent) = receive(&mut dialogue, &text(&granted()));
        assert_eq!((heard.answered, sent), (Some(Answer::Granted), Vec::new()));
        let mut bye = Vec::new();
        if is_evicted {
            let (heard, _) = receive(&mut dialogue, &text(&ServerMessage::Evicted("gone".into())));
            assert!(heard.evicted);
            dialogue.leave(&script, &mut bye);
            assert!(bye.is_empty());
            let (_, sent) = receive(&mut dialogue, &close(4409));
            assert!(!sent.is_empty(), "the close frame is answered");
        } else {
            dialogue.leave(&script, &mut bye);
            let mut expected = Vec::new();
            script.write_bye(&mut expected);
            assert_eq!(bye, expected);
            let _close = receive(&mut dialogue, &[text(&ServerMessage::ByeSuccess), close(1000)].concat());
        }
        dialogue.end(&script).expect("a good end");
    }
}

#[test]
fn session_may_lose_its_slot_before_it_is_told_of_it() {
    let script = script();
    let said = [
        [HEAD.as_bytes(), &text(&ServerMessage::Hello)].concat(),
        [text(&ServerMessage::Evicted("gone".into())), close(4409)].concat(),
    ];
    let mut dialogue = Dialogue::staying();
    let _greeted = dialogue.receive(&script, &said[0], &mut Vec::new()).expect("a greeting");
    dialogue.authenticate(&script, 7, &mut Vec::new());
    let heard = dialogue.receive(&script, &said[1], &mut Vec::new()).expect("a good server");
    assert_eq!(heard, Heard { answered: Some(Answer::Superseded), ..Heard::default() });
    dialogue.end(&script).expect("a good end");
    // A cycle has no answer then.
    assert_eq!(failure(&said), "the session was ended: gone");
}
