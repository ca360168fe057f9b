//! Prints the events of sessions as text or JSON, and errors.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use humantime::format_duration;
use serde::Serialize;
use session_core::protocol::{AuthenticateFailure, ServerMessage, SessionSummary, UserSummary};

use crate::client::output::{format_session, format_usage, write_line};
use crate::client::redact::redacted_json;
use crate::client::{Error, Url};

/// The format of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A short line of text, and below a list of sessions a line for each. With several connections a line begins with the
    /// number, as in `#3 `.
    Text,
    /// A line of JSON, `{"connection":3,"type":…,"payload":…}`: the server's messages as they are on the wire, but
    /// without a resume token, and
    ///
    /// | type | payload |
    /// |---|---|
    /// | `CONNECTED` | the server's URL |
    /// | `UNKNOWN` | a message this version does not understand, as it came |
    /// | `RETRY` | `{"after_ms":…}`: when the session comes back, if it is to |
    /// | `CLOSED` | `{"code":…,"words":…}` of the server's close frame |
    /// | `LOST` | how the connection broke, in words |
    /// | `FAILED` | what else went wrong, in words |
    Json,
    /// No events.
    Quiet,
}

/// Prints events to one output and errors to another. Each line is flushed.
pub struct Printer<'a> {
    format: Format,
    with_numbers: bool,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    failure: Option<io::Error>,
}

/// Something to print about a session.
pub(crate) enum Line<'a> {
    Connected(&'a Url),
    Reply(&'a ServerMessage),
    Unknown(&'a str),
    /// A failure: prints an event and an error.
    Failed(&'a Error),
    /// A denial after which the session may try again: prints an event only.
    Denied(&'a Error),
    /// A failure whose event is printed already: prints an error only.
    Error(&'a Error),
    /// The client connects again after this time.
    Retry(Duration),
}

impl<'a> Printer<'a> {
    /// Prints events to `out` and errors to `err`.
    #[must_use]
    pub fn new(format: Format, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { format, with_numbers: false, out, err, failure: None }
    }

    /// Whether lines begin with the number of the connection.
    pub(crate) fn with_numbers(self, with_numbers: bool) -> Self {
        Self { with_numbers, ..self }
    }

    /// Whether the output has failed. Events are dropped from then on.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The error of the output, if it failed for another reason than a closed pipe.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self.failure {
            Some(failure) if failure.kind() != io::ErrorKind::BrokenPipe => Err(failure),
            Some(_) | None => Ok(()),
        }
    }

    /// Prints lines that are not events.
    pub(crate) fn print_lines(&mut self, lines: &[String]) {
        for line in lines {
            if self.failure.is_none() {
                self.failure = write_line(self.out, line).err();
            }
        }
    }

    pub(crate) fn print(&mut self, number: u16, line: &Line<'_>) {
        let prefix = if self.with_numbers { format!("#{number} ") } else { String::new() };
        match self.format {
            Format::Text => {
                let list = match line {
                    Line::Reply(reply) => listed_sessions(reply),
                    Line::Connected(_)
                    | Line::Unknown(_)
                    | Line::Failed(_)
                    | Line::Denied(_)
                    | Line::Error(_)
                    | Line::Retry(_) => &[],
                };
                let list = list.iter().map(|session| format!("{prefix}  {}", format_session(session)));
                let event = format_text(line).map(|reason| format!("{prefix}{reason}"));
                self.print_lines(&event.into_iter().chain(list).collect::<Vec<_>>());
            }
            Format::Json => self.print_lines(format_json(number, line).as_slice()),
            Format::Quiet => {}
        }
        if let Line::Failed(error) | Line::Error(error) = line {
            // If this fails, the exit code still reports the error.
            let _ignored: io::Result<()> = write_line(self.err, &format!("error: {prefix}{error}"));
        }
    }
}

/// The event as text. `None` if the error alone says it.
fn format_text(line: &Line<'_>) -> Option<String> {
    match line {
        Line::Connected(url) => Some(format!("connected to {url}")),
        Line::Reply(reply) => Some(reply_text(reply)),
        Line::Unknown(text) => Some(format!("unknown message {text}")),
        Line::Retry(after) => Some(format!("connecting again in {:.1} s", after.as_secs_f64())),
        Line::Failed(error) | Line::Denied(error) => match (error_reply(error), error) {
            (Some(reply), _) => Some(reply_text(&reply)),
            (None, Error::Closed { code, reason }) => Some(format!("CLOSED {code} {reason}")),
            (None, _) => None,
        },
        Line::Error(_) => None,
    }
}

fn reply_text(reply: &ServerMessage) -> String {
    match reply {
        ServerMessage::Hello | ServerMessage::HelloDetailed(_) => "HELLO message from server".into(),
        ServerMessage::AuthenticateSuccess(user) => format!("AUTHENTICATE_SUCCESS {}", user_text(user)),
        ServerMessage::AuthenticateFailure(reason) => format!("AUTHENTICATE_FAILURE {reason}"),
        ServerMessage::ByeSuccess => "BYE_SUCCESS goodbye".into(),
        ServerMessage::CheckConnectionsSuccess(user) => format!("CHECK_CONNECTIONS_SUCCESS {}", user_text(user)),
        ServerMessage::AuthenticateSuccessDetailed(details) => {
            format!("AUTHENTICATE_SUCCESS {}", user_text(&details.user))
        }
        ServerMessage::AuthenticateFailureDetailed(details) => format!("AUTHENTICATE_FAILURE {}", details.reason),
        ServerMessage::AuthenticateWaiting(details) => {
            let wait = format_duration(round_to_seconds(details.wait));
            format!("AUTHENTICATE_WAITING place {} in line, for another {wait} at most", details.place)
        }
        ServerMessage::SessionsChanged(sessions) => format!("SESSIONS_CHANGED {}", format_usage(sessions)),
        ServerMessage::ListSessionsSuccess(sessions) => format!("LIST_SESSIONS_SUCCESS {}", format_usage(sessions)),
        ServerMessage::EndSessionSuccess(user) => format!("END_SESSION_SUCCESS {}", user_text(user)),
        ServerMessage::Pong => "PONG".into(),
        ServerMessage::Evicted(reason) => format!("EVICTED {reason}"),
        ServerMessage::EvictedDetailed(details) => format!("EVICTED {}", details.message),
        ServerMessage::Error(error) => format!("ERROR {error}"),
        ServerMessage::ErrorDetailed(details) => format!("ERROR {}", details.error),
    }
}

/// Up, so that it is never nothing.
fn round_to_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// The sessions that the message is there to list. An answer to AUTHENTICATE has other news.
fn listed_sessions(reply: &ServerMessage) -> &[SessionSummary] {
    match reply {
        ServerMessage::ListSessionsSuccess(list) | ServerMessage::SessionsChanged(list) => &list.sessions,
        ServerMessage::Hello
        | ServerMessage::HelloDetailed(_)
        | ServerMessage::AuthenticateSuccess(_)
        | ServerMessage::AuthenticateSuccessDetailed(_)
        | ServerMessage::AuthenticateWaiting(_)
        | ServerMessage::AuthenticateFailure(_)
        | ServerMessage::AuthenticateFailureDetailed(_)
        | ServerMessage::ByeSuccess
        | ServerMessage::CheckConnectionsSuccess(_)
        | ServerMessage::EndSessionSuccess(_)
        | ServerMessage::Pong
        | ServerMessage::Evicted(_)
        | ServerMessage::EvictedDetailed(_)
        | ServerMessage::Error(_)
        | ServerMessage::ErrorDetailed(_) => &[],
    }
}

fn user_text(UserSummary { id, connections }: &UserSummary) -> String {
    let plural = if *connections == 1 { "" } else { "s" };
    format!("{id} holds {connections} connection{plural}")
}

/// The event as JSON.
fn format_json(number: u16, line: &Line<'_>) -> Option<String> {
    #[derive(Serialize)]
    struct Close<'a> {
        code: u16,
        #[serde(rename = "words")]
        reason: &'a str,
    }

    #[derive(Serialize)]
    struct Retry {
        after_ms: u64,
    }

    Some(match line {
        Line::Connected(url) => event_json(number, "CONNECTED", &url.to_string()),
        Line::Reply(reply) => reply_json(number, reply),
        Line::Unknown(text) => event_json(number, "UNKNOWN", text),
        Line::Retry(after) => {
            event_json(number, "RETRY", &Retry { after_ms: after.as_millis().try_into().unwrap_or(u64::MAX) })
        }
        Line::Failed(error) | Line::Denied(error) => match (error_reply(error), error) {
            (Some(reply), _) => reply_json(number, &reply),
            (None, Error::Closed { code, reason }) => event_json(number, "CLOSED", &Close { code: *code, reason }),
            (None, Error::Lost(reason)) => event_json(number, "LOST", reason),
            (None, _) => event_json(number, "FAILED", &error.to_string()),
        },
        Line::Error(_) => return None,
    })
}

/// The message as it is on the wire, with the connection as first key.
fn reply_json(number: u16, reply: &ServerMessage) -> String {
    let mut line = format!(r#"{{"connection":{number},"#);
    line += redacted_json(reply).strip_prefix('{').expect("a reply is a JSON object");
    line
}

fn event_json<T: Serialize + ?Sized>(number: u16, kind: &str, payload: &T) -> String {
    let payload = serde_json::to_string(payload).expect("strings and numbers always serialise");
    let mut line = String::new();
    write!(line, r#"{{"connection":{number},"type":"{kind}","payload":{payload}}}"#).expect("a string takes all");
    line
}

/// The message that caused the error, if one did.
fn error_reply(error: &Error) -> Option<ServerMessage> {
    match error {
        Error::Denied { details: Some(details), .. } | Error::Refused { details: Some(details), .. } => {
            Some(ServerMessage::AuthenticateFailureDetailed(details.clone()))
        }
        Error::Denied { is_device_full, details: None, .. } => {
            let reason =
                if *is_device_full { AuthenticateFailure::DeviceFull } else { AuthenticateFailure::LimitReached };
            Some(ServerMessage::AuthenticateFailure(reason))
        }
        Error::Refused { reason, details: None, .. } => Some(ServerMessage::AuthenticateFailure(reason.clone())),
        Error::Evicted(reason) => Some(ServerMessage::Evicted(reason.clone())),
        Error::RequestFailed(error) => Some(ServerMessage::Error(error.clone())),
        Error::BadUrl(_)
        | Error::Unreachable { .. }
        | Error::Handshake { .. }
        | Error::BadCa { .. }
        | Error::BadToken { .. }
        | Error::TokenTakenForName
        | Error::BadResumeFile { .. }
        | Error::Unexpected { .. }
        | Error::Closed { .. }
        | Error::Lost(_)
        | Error::TimedOut { .. }
        | Error::NotConnected { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use session_core::ledger::SlotLimit;
    use session_core::protocol::{RequestError, SessionList, StatusWord, WaitingDetails};
    use session_core::{DisplayName, NodeId, UserId};

    /// Prints these lines as connection 3 of several. Returns events, then errors.
    fn print(format: Format, lines: &[Line<'_>]) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(format, &mut out, &mut err).with_numbers(true);
        for line in lines {
            printer.print(3, line);
        }
        printer.finish().expect("memory takes all");
        (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    }

    fn story(run: impl FnOnce(&[Line<'_>])) {
        let url = "ws://h:1".parse().expect("a good URL");
        let user = |connections| UserSummary { id: UserId::parse("ada").expect("a good id"), connections };
        let waiting = WaitingDetails {
            place: 2,
            wait: Duration::from_millis(89_100),
            limit: SlotLimit::default(),
            connections: 1,
            sessions: None,
            retry_after: None,
            client_choice: false,
        };
        let session = SessionSummary {
            id: NodeId::new(7).session(8),
            slot: None,
            is_own: true,
            device: None,
            label: DisplayName::parse("desk"),
            since: 1_700_000_000_000,
            state: StatusWord::Live,
            until: None,
        };
        let changed = SessionList { limit: 1, connections: 1, waiting: 1, sessions: [session].into() };
        run(&[
            Line::Connected(&url),
            Line::Reply(&ServerMessage::Hello),
            Line::Reply(&ServerMessage::AuthenticateWaiting(Box::new(waiting))),
            Line::Reply(&ServerMessage::AuthenticateSuccess(user(1))),
            Line::Reply(&ServerMessage::SessionsChanged(Box::new(changed))),
            Line::Reply(&ServerMessage::CheckConnectionsSuccess(user(2))),
            Line::Failed(&Error::RequestFailed(RequestError::NotJson)),
            Line::Failed(&Error::Denied { user: Some("ada".into()), is_device_full: false, details: None }),
            Line::Denied(&Error::Denied { user: Some("ada".into()), is_device_full: true, details: None }),
            Line::Failed(&Error::Closed { code: 1001, reason: "gone".into() }),
            Line::Failed(&Error::Lost("cut".into())),
            Line::Unknown("\u{1b}[2J"),
            Line::Reply(&ServerMessage::ByeSuccess),
        ]);
    }

    #[test]
    fn text_escapes_control_characters() {
        story(|lines| {
            let (out, err) = print(Format::Text, lines);
            assert_eq!(
                out,
                "#3 connected to ws://h:1/\n\
                 #3 HELLO message from server\n\
                 #3 AUTHENTICATE_WAITING place 2 in line, for another 1m 30s at most\n\
                 #3 AUTHENTICATE_SUCCESS ada holds 1 connection\n\
                 #3 SESSIONS_CHANGED 1 slot of 1 taken, 1 in line\n\
                 #3   00000000000000070000000000000008, label \"desk\", since 2023-11-14T22:13:20Z, this session\n\
                 #3 CHECK_CONNECTIONS_SUCCESS ada holds 2 connections\n\
                 #3 ERROR Message is not valid JSON\n\
                 #3 AUTHENTICATE_FAILURE User has reached connection limit, no more connections allowed\n\
                 #3 AUTHENTICATE_FAILURE This device has as many sessions as one may\n\
                 #3 CLOSED 1001 gone\n\
                 #3 unknown message \\u{1b}[2J\n\
                 #3 BYE_SUCCESS goodbye\n"
            );
            assert_eq!(err.lines().count(), 4);
            assert!(err.ends_with("error: #3 the connection is lost: cut; connect again\n"), "{err}");
        });
    }

    #[test]
    fn json_is_the_message_with_the_connection() {
        story(|lines| {
            let (out, err) = print(Format::Json, lines);
            let expected = [
                r#"{"connection":3,"type":"CONNECTED","payload":"ws://h:1/"}"#,
                r#"{"connection":3,"type":"HELLO","payload":"message from server"}"#,
                r#"{"connection":3,"type":"AUTHENTICATE_WAITING","payload":{"place":2,"wait_ms":89100,"limit":3,"connections":1}}"#,
                r#"{"connection":3,"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#,
                r#"{"connection":3,"type":"SESSIONS_CHANGED","payload":{"limit":1,"connections":1,"waiting":1,"sessions":[{"id":"00000000000000070000000000000008","self":true,"label":"desk","since":1700000000000,"state":"live"}]}}"#,
                r#"{"connection":3,"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":2}}"#,
                r#"{"connection":3,"type":"ERROR","payload":"Message is not valid JSON"}"#,
                r#"{"connection":3,"type":"AUTHENTICATE_FAILURE","payload":"User has reached connection limit, no more connections allowed"}"#,
                r#"{"connection":3,"type":"AUTHENTICATE_FAILURE","payload":"This device has as many sessions as one may"}"#,
                r#"{"connection":3,"type":"CLOSED","payload":{"code":1001,"words":"gone"}}"#,
                r#"{"connection":3,"type":"LOST","payload":"cut"}"#,
                r#"{"connection":3,"type":"UNKNOWN","payload":"\u001b[2J"}"#,
                r#"{"connection":3,"type":"BYE_SUCCESS","payload":null}"#,
            ];
            assert_eq!(out.lines().collect::<Vec<_>>(), expected);
            assert_eq!(err.lines().count(), 4);
        });
    }

    #[test]
    fn quiet_prints_only_errors() {
        story(|lines| {
            let (out, err) = print(Format::Quiet, lines);
            assert_eq!((&*out, err.lines().count()), ("", 4));
        });
    }
}
