//! `server users`: a page of the users that the server knows.

use std::io::{self, Write};

use clap::Args;

use super::admin_access;
use super::user_text::{count, quoted};
use crate::admin::{AdminService, ListedUser, SessionsReport, UserList, UserListRequest, is_cursor, socket};
use crate::config::Config;
use crate::runtime::rfc3339::format_rfc3339;

/// The arguments of `server users`.
#[derive(Debug, Args)]
pub(crate) struct UsersArguments {
    /// Only users whose ids begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only users who have sessions, live or lingering
    #[arg(long)]
    with_sessions: bool,
    /// The most users to list, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = UserListRequest::DEFAULT_LIMIT, value_parser = parse_page_limit)]
    limit: usize,
    /// Where to go on: what the page before said at its end, or `next` in JSON
    #[arg(long, value_name = "CURSOR", value_parser = parse_cursor)]
    after: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_page_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=1000).contains(limit));
    limit.ok_or_else(|| "expected a whole number from 1 to 1000".into())
}

fn parse_cursor(text: &str) -> Result<String, String> {
    if is_cursor(text) {
        Ok(text.into())
    } else {
        Err("no page ends with that: take what the page before named".into())
    }
}

/// Lists the users. Returns the exit code.
pub(crate) fn run(
    arguments: UsersArguments,
    config: &Config,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let UsersArguments { prefix, with_sessions, limit, after, json } = arguments;
    let request = UserListRequest { prefix, with_sessions, after, limit: Some(limit) };
    let server = async || socket::list_users(&config.data, &request).await;
    let store = async |service: &AdminService| service.list_users(&request).await.map_err(|why| why.to_string());
    match smol::block_on(admin_access::ask(config, server, store)) {
        Ok(list) if json => {
            let json = serde_json::to_string(&list).expect("strings and numbers always serialise");
            writeln!(out, "{json}").map(|()| 0)
        }
        Ok(list) => write!(out, "{}", describe(&list)).map(|()| 0),
        Err(error) => writeln!(err, "error: {error}").map(|()| 1),
    }
}

/// One line for each user, and where to go on.
fn describe(UserList { users, next }: &UserList) -> String {
    let mut lines: Vec<_> = users.iter().map(user_line).collect();
    match next {
        Some(next) => lines.push(format!("there may be more: --after {next}")),
        None if users.is_empty() => lines.push("no user".into()),
        None => {}
    }
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn user_line(user: &ListedUser) -> String {
    let SessionsReport { live, lingering } = user.sessions;
    let mut parts = vec![format!("{} {}", quoted(&user.user), count(live + lingering, "session"))];
    if lingering > 0 {
        parts.push(format!("{lingering} of them lost and kept"));
    }
    parts.push(match (user.known, user.first_seen, user.last_seen) {
        (true, Some(first), Some(last)) => {
            format!("first seen {}, last seen {}", format_rfc3339(first), format_rfc3339(last))
        }
        (true, _, _) => "seen; when cannot be read".into(),
        (false, _, _) => "never seen".into(),
    });
    parts.extend(user.overrides.limit.map(|limit| format!("limit {limit}")));
    parts.extend(user.overrides.when_full.map(|when_full| format!("when_full {}", when_full.name())));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use session_core::UserId;

    use super::*;
    use crate::admin::OverridesReport;

    #[test]
    fn list_says_who_was_never_seen_and_where_to_go_on() {
        let user = |id: &str, live, known| ListedUser {
            user: UserId::parse(id).unwrap(),
            sessions: SessionsReport { live, lingering: u32::from(known) },
            known,
            first_seen: known.then_some(0),
            last_seen: known.then_some(3_600_000),
            overrides: OverridesReport { limit: Some(7).filter(|_| !known), when_full: None },
        };
        let list = |users, next: Option<&str>| UserList { users, next: next.map(Into::into) };
        assert_eq!(
            describe(&list(vec![user("ada", 1, true), user("zoe ", 0, false)], Some("7a"))),
            "\"ada\" 2 sessions, 1 of them lost and kept, first seen 1970-01-01T00:00:00Z, last seen \
             1970-01-01T01:00:00Z\n\"zoe \" 0 sessions, never seen, limit 7\nthere may be more: --after 7a\n"
        );
        assert_eq!(describe(&list(vec![], None)), "no user\n");
        // Such a page only looked at sessions that are gone.
        assert_eq!(describe(&list(vec![], Some("7a"))), "there may be more: --after 7a\n");
    }
}
