//! Asks the user at a terminal which sessions to end when the limit is reached.

use std::cell::OnceCell;
use std::{io, thread};

use rustix::termios::{QueueSelector, tcflush};
use session_core::SessionId;
use session_core::ledger::Evict;
use session_core::protocol::SessionSummary;
use smol::channel::{self, Receiver};

use crate::client::output::format_session;

/// Reads answers from standard input.
#[derive(Default)]
pub(crate) struct StdinPrompt {
    /// The last line typed. A thread reads standard input from the first question until the process ends, because a
    /// blocking read cannot be cancelled.
    typed: OnceCell<Receiver<String>>,
}

impl StdinPrompt {
    /// Prints the question and returns the next line typed after it. `None` at the end of input.
    pub(crate) async fn read_answer(&self, print_question: impl FnOnce()) -> Option<String> {
        // Drops what was typed before the question, whether the thread has read it or not.
        let _none_if_no_terminal = tcflush(io::stdin(), QueueSelector::IFlush);
        let typed = self.typed.get_or_init(|| {
            let (sender, typed) = channel::bounded(1);
            let _detached = thread::spawn(move || {
                for line in io::stdin().lines().map_while(Result::ok) {
                    if sender.force_send(line).is_err() {
                        break;
                    }
                }
            });
            typed
        });
        let _old = typed.try_recv();
        print_question();
        typed.recv().await.ok()
    }
}

/// A line for each session, numbered if the user is to choose.
pub(crate) fn format_sessions(sessions: &[SessionSummary], is_choice: bool) -> Vec<String> {
    let line = |(number, session): (usize, _)| {
        if is_choice {
            format!("{number}: {}", format_session(session))
        } else {
            format!("  {}", format_session(session))
        }
    };
    ["the slots are held by".to_owned()].into_iter().chain((1..).zip(sessions).map(line)).collect()
}

pub(crate) fn format_question(sessions: usize) -> String {
    match sessions {
        1 => "end it? 1, or Enter for no".into(),
        _ => format!("end which of them? 1 to {sessions}, several with spaces between, or Enter for none"),
    }
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// End no session.
    EndNone,
    End(Box<[SessionId]>),
    /// Not a list of numbers of sessions.
    Invalid,
}

impl Answer {
    pub(crate) fn parse(line: &str, sessions: &[SessionSummary]) -> Self {
        let numbers = line.split([' ', ',', '\t']).filter(|number| !number.is_empty());
        let session = |number: &str| Some(sessions.get(number.parse::<usize>().ok()?.checked_sub(1)?)?.name());
        match numbers.map(session).collect::<Option<Box<[_]>>>() {
            None => Self::Invalid,
            Some(these) if these.is_empty() => Self::EndNone,
            Some(these) if these.len() > Evict::MAX => Self::Invalid,
            // The order matters: the server ends the first ones first, and no more than it must.
            Some(these) => Self::End(these),
        }
    }
}

#[cfg(test)]
mod tests {
    use session_core::NodeId;
    use session_core::protocol::StatusWord;

    use super::*;

    fn sessions(count: u64) -> Box<[SessionSummary]> {
        let session = |number| SessionSummary {
            id: NodeId::new(7).session(number),
            slot: None,
            is_own: false,
            device: None,
            label: None,
            since: 1_700_000_000_000,
            state: StatusWord::Live,
            until: None,
        };
        (1..=count).map(session).collect()
    }

    #[test]
    fn answer_numbers_are_those_of_the_list() {
        let three = sessions(3);
        let these =
            |numbers: &[u64]| Answer::End(numbers.iter().map(|&number| NodeId::new(7).session(number)).collect());
        for (line, meant) in [
            ("2", these(&[2])),
            (" 3 1,1\t", these(&[3, 1, 1])),
            ("", Answer::EndNone),
            (" , ", Answer::EndNone),
            ("0", Answer::Invalid),
            ("4", Answer::Invalid),
            ("1 4", Answer::Invalid),
            ("-1", Answer::Invalid),
            ("the first", Answer::Invalid),
            ("99999999999999999999999", Answer::Invalid),
        ] {
            assert_eq!(Answer::parse(line, &three), meant, "{line:?}");
        }
    }

    #[test]
    fn list_is_numbered_only_for_a_choice() {
        let one = sessions(1);
        let expected = "00000000000000070000000000000001, since 2023-11-14T22:13:20Z";
        assert_eq!(format_sessions(&one, true), ["the slots are held by".to_owned(), format!("1: {expected}")]);
        assert_eq!(format_sessions(&one, false), ["the slots are held by".to_owned(), format!("  {expected}")]);
    }
}
