//! What a request about a user did, as text for people.

use std::fmt::{Display, Write as _};

use session_core::UserId;
use session_core::ledger::{LimitSource, WhenFull};
use session_core::protocol::StatusWord;

use crate::admin::{AdminRequest, Change, NextOutcome, SessionReport, StateReport, UserReport};
use crate::runtime::rfc3339::format_rfc3339;

/// The report as text: first what the request did, then how it stands.
pub(crate) fn describe(report: &UserReport, request: &AdminRequest) -> String {
    let mut lines = Vec::new();
    lines.extend(effect(report, request));
    lines.push(slots(report));
    // A user who was forgotten just now is unknown, and that is no sign of a mistyped id.
    if !(matches!(request, AdminRequest::Forget) && report.change == Change::Made) {
        lines.push(format!("  {}", known(&report.state)));
    }
    if report.state.when_full == WhenFull::EvictOldest {
        lines.push("  when all slots are taken, a new session ends the one with the oldest slot".into());
    }
    lines.extend(report.sessions.iter().map(session));
    let verb = if report.dry_run { "would end" } else { "has ended" };
    lines.extend(report.ended.iter().map(|session| format!("  {session} {verb}")));
    if report.dry_run && report.ended.is_empty() {
        lines.push("no session would end".into());
    }
    lines.extend(beyond_limit(report));
    lines.push(next(report));
    lines.extend(report.look_alikes.iter().map(|other| format!("another user looks like this one: {}", quoted(other))));
    lines.extend(report.logged_as.iter().map(|hash| format!("the log calls this user {hash}")));
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

/// The user's id in quotes. What cannot be seen, or hides in the letter before it, is written as an escape.
pub(crate) fn quoted(user: &UserId) -> String {
    let escaped = user.as_str().chars().flat_map(|char| match char {
        '\'' => vec![char],
        _ => char.escape_debug().collect(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// When the user was seen.
pub(crate) fn known(state: &StateReport) -> String {
    match (state.known, state.first_seen, state.last_seen) {
        (Some(true), Some(first), Some(last)) => {
            format!("first seen {}, last seen {}", format_rfc3339(first), format_rfc3339(last))
        }
        (Some(true), _, _) => "the server has seen this user; when cannot be read".into(),
        (Some(false), _, _) => {
            "the server has never seen this user, or has forgotten the user since: is the id right?".into()
        }
        (None, _, _) => "whether the server has seen this user cannot be read now".into(),
    }
}

/// What the request did. `None` if it was only a question.
fn effect(report: &UserReport, request: &AdminRequest) -> Option<String> {
    let user = quoted(&report.user);
    let what = match request {
        AdminRequest::Explain => return None,
        AdminRequest::Limit(_) => limit_effect(report),
        AdminRequest::End(_) => end_effect(report, &user),
        AdminRequest::Forget => forget_effect(report, &user),
    };
    let result = match (report.dry_run, report.change) {
        (true, Change::None) => "dry run, there would be nothing to do",
        (true, Change::Made | Change::WouldBeMade) => "dry run, nothing is changed",
        (false, Change::None) => "nothing to do",
        (false, Change::Made | Change::WouldBeMade) => "done",
    };
    Some(format!("{result}: {what}"))
}

fn limit_effect(report: &UserReport) -> String {
    let user = quoted(&report.user);
    let state = &report.state;
    let before = report.before.as_ref().unwrap_or(state);
    let verb = if report.dry_run { "would be" } else { "is now" };
    let limit = |state: &StateReport| format!("{} ({})", state.limit, source(state.limit_source));
    let mut parts = Vec::new();
    if (before.limit, before.limit_source) == (state.limit, state.limit_source) {
        parts.push(format!("the limit of user {user} is {}, as before", limit(state)));
    } else {
        parts.push(format!("the limit of user {user} was {}, and {verb} {}", limit(before), limit(state)));
    }
    let when_full = |state: &StateReport| {
        let source = if state.overrides.when_full.is_some() { "per-user override" } else { "the server's" };
        format!("{} ({source})", state.when_full.name())
    };
    if when_full(before) != when_full(state) {
        parts.push(format!("when_full was {}, and {verb} {}", when_full(before), when_full(state)));
    }
    if let (Some(held), false) = (report.connections_before, report.ended.is_empty()) {
        let (ended, verb) = (report.ended.len(), if report.dry_run { "would end" } else { "ended" });
        parts.push(format!("of {} held, {} {verb}", count(held, "slot"), count(ended, "session")));
    }
    parts.join("; ")
}

fn end_effect(report: &UserReport, user: &str) -> String {
    match (report.ended.len(), report.connections_before) {
        (0, _) => format!("user {user} holds no slot"),
        (ended, Some(held)) => {
            format!("ended {} of user {user}, who held {}", count(ended, "session"), count(held, "slot"))
        }
        (ended, None) => format!("ended {} of user {user}", count(ended, "session")),
    }
}

fn forget_effect(report: &UserReport, user: &str) -> String {
    let Some(before) = report.before.as_ref().filter(|_| report.change != Change::None) else {
        return format!("the server knows nothing of user {user}");
    };
    let mut parts = vec![format!("user {user} is forgotten")];
    parts.extend((before.known == Some(true)).then(|| known(before)));
    if let Some(limit) = before.overrides.limit {
        parts.push(format!("the limit was {limit} (per-user override)"));
    }
    if let Some(when_full) = before.overrides.when_full {
        parts.push(format!("when_full was {} (per-user override)", when_full.name()));
    }
    parts.join("; ")
}

fn slots(report: &UserReport) -> String {
    let (user, state) = (quoted(&report.user), &report.state);
    let (held, limit, source) = (count(report.connections, "slot"), state.limit, source(state.limit_source));
    if report.dry_run {
        format!("user {user} holds {held}; the limit would be {limit} ({source})")
    } else {
        let in_line = if report.waiting == 0 { String::new() } else { format!(", {} in line", report.waiting) };
        format!("user {user} holds {held} of {limit} ({source}){in_line}")
    }
}

const fn source(source: LimitSource) -> &'static str {
    match source {
        LimitSource::Server => "the server's default, unless a token has another",
        LimitSource::Token => "as the newest session's token claims",
        LimitSource::User => "per-user override",
    }
}

fn session(SessionReport { session, claimed_limit, from, client_prefix }: &SessionReport) -> String {
    let mut message = format!("  {} since {}", session.name(), format_rfc3339(session.since));
    for (what, name) in [("label", &session.label), ("device", &session.device)] {
        if let Some(name) = name {
            let _infallible = write!(message, ", {what} {:?}", name.as_str());
        }
    }
    if let Some(limit) = claimed_limit {
        let _infallible = write!(message, ", token claims {limit}");
    }
    if let Some(from) = from {
        let _infallible = write!(message, ", from {from}");
        if let Some(prefix) = client_prefix.as_ref().filter(|prefix| **prefix != from.to_string()) {
            let _infallible = write!(message, " (counted as {prefix})");
        }
    }
    match (session.state, session.until) {
        (StatusWord::Live, _) => {}
        (StatusWord::Lingering, Some(until)) => {
            let _infallible = write!(message, ", lost, kept until {}", format_rfc3339(until));
        }
        (StatusWord::Lingering, None) => message += ", lost",
    }
    message
}

fn beyond_limit(report: &UserReport) -> Option<String> {
    let beyond = report.beyond_limit.len();
    let (go_on, verb) = match (report.dry_run, beyond == 1) {
        (true, _) => ("would go on", "would be"),
        (false, true) => ("goes on", "is"),
        (false, false) => ("go on", "are"),
    };
    (beyond > 0).then(|| {
        format!("{} {verb} beyond the limit and {go_on}; --enforce ends the newest first", count(beyond, "session"))
    })
}

fn next(report: &UserReport) -> String {
    let next: String = match &report.next {
        NextOutcome::Granted { ended } if ended.is_empty() => "the next session would get a slot".into(),
        NextOutcome::Granted { ended } => format!("the next session would get a slot, and end {}", ended.join(" and ")),
        NextOutcome::Denied if report.state.limit == 0 => "the next session would be denied: the limit is 0".into(),
        NextOutcome::Denied => "the next session would be denied: all slots are taken".into(),
    };
    match &report.refusal {
        None => next,
        Some(refusal) => format!("no session is admitted now; a client is told: {refusal}\nafter that {next}"),
    }
}

/// As in `1 slot` and `2 slots`.
pub(crate) fn count(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    format!("{number} {noun}{}", if number == "1" { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_user_shows_what_cannot_be_seen() {
        for (id, text) in [
            ("zoe", r#""zoe""#),
            ("zoe ", r#""zoe ""#),
            ("o'brien \"x\"", r#""o'brien \"x\"""#),
            ("zo\u{eb}", "\"zo\u{eb}\""),
            ("zoe\u{308}", r#""zoe\u{308}""#),
            ("a\u{200b}b\u{202e}c\u{a0}", r#""a\u{200b}b\u{202e}c\u{a0}""#),
        ] {
            assert_eq!(quoted(&UserId::parse(id).unwrap()), text);
        }
    }
}
