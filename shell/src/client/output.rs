//! Lines for a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use session_core::protocol::{SessionList, SessionSummary, StatusWord};

use crate::runtime::rfc3339::format_rfc3339;

pub(crate) fn write_line(to: &mut dyn Write, line: &str) -> io::Result<()> {
    let mut escape = escape(line);
    escape.push('\n');
    to.write_all(escape.as_bytes())?;
    to.flush()
}

/// Escapes control characters and bidirectional marks, so that text from a server can neither drive a terminal nor
/// appear as something else.
pub(crate) fn escape(line: &str) -> String {
    let mut escape = String::with_capacity(line.len() + 1);
    for character in line.chars() {
        if character.is_control() || is_bidi_control(character) {
            escape.extend(character.escape_default());
        } else {
            escape.push(character);
        }
    }
    escape
}

/// The explicit marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9 §2).
const fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many slots are taken, as text.
pub(crate) fn format_usage(sessions: &SessionList) -> String {
    let SessionList { limit, connections, waiting, sessions: _ } = sessions;
    let plural = if *connections == 1 { "" } else { "s" };
    let in_line = if *waiting == 0 { String::new() } else { format!(", {waiting} in line") };
    format!("{connections} slot{plural} of {limit} taken{in_line}")
}

/// One session as a line of text.
pub(crate) fn format_session(session: &SessionSummary) -> String {
    // The name that lasts, if the server tells it.
    let mut text = session.name().to_string();
    for (what, name) in [("label", &session.label), ("device", &session.device)] {
        if let Some(name) = name {
            let _infallible = write!(text, ", {what} {:?}", name.as_str());
        }
    }
    let _infallible = write!(text, ", since {}", format_rfc3339(session.since));
    if session.is_own {
        text += ", this session";
    }
    match (session.state, session.until) {
        (StatusWord::Live, _) => {}
        (StatusWord::Lingering, None) => text += ", lost",
        (StatusWord::Lingering, Some(until)) => {
            let _infallible = write!(text, ", lost, kept until {}", format_rfc3339(until));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use session_core::{DisplayName, NodeId};

    use super::*;

    #[test]
    fn session_line_has_names_and_state() {
        let live = SessionSummary {
            id: NodeId::new(7).session(8),
            slot: None,
            is_own: false,
            device: None,
            label: None,
            since: 1_700_000_000_000,
            state: StatusWord::Live,
            until: None,
        };
        assert_eq!(format_session(&live), "00000000000000070000000000000008, since 2023-11-14T22:13:20Z");
        let own = format_session(&SessionSummary { is_own: true, ..live.clone() });
        assert_eq!(own, "00000000000000070000000000000008, since 2023-11-14T22:13:20Z, this session");
        let lost = SessionSummary {
            label: DisplayName::parse("Firefox"),
            device: DisplayName::parse("laptop"),
            state: StatusWord::Lingering,
            until: Some(u64::MAX),
            ..live
        };
        assert_eq!(
            format_session(&lost),
            "00000000000000070000000000000008, label \"Firefox\", device \"laptop\", since 2023-11-14T22:13:20Z, \
             lost, kept until 18446744073709551615 ms after 1970"
        );
    }
}
