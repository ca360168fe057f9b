//! Commands of one user's sessions as words, and what becomes of each.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use session_core::SessionId;
use session_core::ledger::{
    AcquireOptions, AdmissionPolicy, EndReason, EndTarget, Evict, Hint, KnownToken, LinePlace, Outcome, StoreCommand,
};

use super::one_user::*;

/// Runs commands, one a row: a session and its words, and what becomes of it. The rule oracle judges each as well.
///
/// A session is a number, from 50 on on another node. Without words it asks for a slot. `waits`, `of DEVICE`, `claims LIMIT`,
/// `spares` (`evict: nobody`), `evicts oldest`, `evicts NUMBER` and `resumes NUMBER` say how. `leaves` is BYE, `is lost` a
/// lost connection, `watches` and `ignores` a list. `ends NUMBER` ends another session. `dies` is the end of its node, which the
/// next command notices.
///
/// The result is the outcome, then the sessions that are called to ask again, then those that are told of a change.
pub(super) fn run(policy: &AdmissionPolicy, rows: &[(&str, &str)]) -> UserHarness {
    let mut harness = UserHarness::default();
    for (row, (command, expected)) in rows.iter().enumerate() {
        assert_eq!(step(&mut harness, policy, command), *expected, "row {}: {command}", row + 1);
    }
    harness
}

fn session(word: &str) -> SessionId {
    let number = word.parse().unwrap();
    if number < 50 { id(number) } else { THERE.session(number) }
}

fn step(harness: &mut UserHarness, policy: &AdmissionPolicy, text: &str) -> String {
    let at = harness.next_second();
    let mut words = text.split(' ');
    let own = words.next().unwrap();
    let (user, session_id) = (user(), session(own));
    let mut claim = None;
    let mut options = AcquireOptions { new_resume_key: Some(key(own.parse().unwrap())), ..AcquireOptions::default() };
    let mut command = None;
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap();
        let user = user.clone();
        match word {
            "waits" => options.waits = true,
            "of" => options.device = name(next()),
            "claims" => claim = Some(limit(next().parse().unwrap())),
            "spares" => options.evict = Some(Evict::Nobody),
            "evicts" => {
                let named = next();
                let one = || Evict::Sessions([session(named)].into());
                options.evict = Some(if named == "oldest" { Evict::Oldest } else { one() });
            }
            "resumes" => options.resume = Some(key(next().parse().unwrap())),
            "leaves" => command = Some(StoreCommand::Release { user, session: session_id }),
            "is" => {
                assert_eq!(next(), "lost");
                command = Some(StoreCommand::Linger { user, session: session_id, at, token: KnownToken::Granted });
            }
            "watches" | "ignores" => {
                let (session, watch) = (session_id, Some(word == "watches"));
                command =
                    Some(StoreCommand::ListSessions { user, session, limit: None, is_unbounded: false, watch, at });
            }
            "ends" => {
                let (target, reason) = (EndTarget::One(session(next())), EndReason::ByUser(None));
                command = Some(StoreCommand::EndSessions { user, session: session_id, target, reason, at });
            }
            "dies" => {
                harness.dead.insert(session_id.node(), at);
                return "dead".into();
            }
            other => panic!("{other}"),
        }
    }
    let command = command.unwrap_or_else(|| StoreCommand::Acquire {
        user: user.clone(),
        session: session_id,
        limit: claim,
        at,
        options: Some(options.into()),
    });
    let outcome = harness.apply_judged(policy, &command);
    let mut text = match outcome {
        Outcome::Granted { .. } => "granted".into(),
        Outcome::Denied(usage) if usage.as_ref().unwrap().line == LinePlace::Full => "full".into(),
        Outcome::Denied(_) => "denied".into(),
        Outcome::Waiting(usage) => {
            let LinePlace::At(place) = usage.line else { panic!("{usage:?}") };
            format!("at {place}")
        }
        Outcome::Released => "gone".into(),
        Outcome::Listed(usage) => format!("{} slots, {} wait", usage.slots, usage.waiting),
        Outcome::Ended { sessions, .. } => format!("ended {}", sessions.len()),
        Outcome::Counted { .. } | Outcome::NotRenewed(_) | Outcome::Rejected(_) | Outcome::Unknown => {
            format!("{outcome:?}")
        }
    };
    for (word, hint) in [("calls", Hint::Turn), ("tells", Hint::Changed)] {
        let to: Vec<_> = harness.hints.iter().filter(|hinted| hinted.hint == hint).collect();
        if !to.is_empty() {
            let to: Vec<_> = to.iter().map(|hinted| hinted.session.number().to_string()).collect();
            text = format!("{text}, {word} {}", to.join(" "));
        }
    }
    text
}
