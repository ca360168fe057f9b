//! The sessions of a store, as a server has them: who is granted a slot is told so, and who loses it leaves.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use session_core::ledger::{EndedSession, Outcome, SessionHint, StoreCommand};
use session_core::{SessionId, UserId};
use shell::store::{Completion, SessionNotifier, Store};

use super::harness::Observed;

/// All sessions of a store. What the store says is passed on in its order, by a thread of its own: a store calls back where it
/// applies commands, and a session acts on its own thread.
pub(super) struct Clients {
    store: Arc<dyn Store>,
    said: Sender<Said>,
    thread: Option<JoinHandle<()>>,
}

/// What the store says.
enum Said {
    Ended(UserId, Vec<EndedSession>),
    Hinted(Vec<SessionHint>),
    /// To this user's session, and who waits for it.
    Answered {
        user: UserId,
        session: SessionId,
        command: Kind,
        outcome: Outcome,
        then: Then,
    },
    /// There is no more to come.
    Over,
}

/// What a session does with its answer.
type Then = Box<dyn FnOnce(Outcome) + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Acquire,
    Release,
    Other,
}

struct Notifier(Sender<Said>);

impl SessionNotifier for Notifier {
    fn notify(&self, user: &UserId, ended: Vec<EndedSession>) {
        // Fails when the test is over.
        let _unheard = self.0.send(Said::Ended(user.clone(), ended));
    }

    fn hint(&self, hints: Vec<SessionHint>) {
        let _unheard = self.0.send(Said::Hinted(hints));
    }
}

impl Clients {
    /// The clients of this store. The observer is told who loses a slot, and of hints.
    pub(super) fn new(store: &Arc<dyn Store>, observer: Sender<Observed>) -> Self {
        let (said, hears) = channel();
        store.set_notifier(Arc::new(Notifier(said.clone())));
        let weak = Arc::downgrade(store);
        let thread = thread::spawn(move || run(&weak, &hears, &observer));
        Self { store: Arc::clone(store), said, thread: Some(thread) }
    }

    /// Submits a command of a session.
    pub(super) fn submit(&self, command: StoreCommand) -> Receiver<Outcome> {
        let (sender, receiver) = channel();
        // Fails when the test does not wait any more.
        self.submit_then(command, move |outcome| drop(sender.send(outcome)));
        receiver
    }

    /// Submits a command of a session that does this with the answer.
    pub(super) fn submit_then(&self, command: StoreCommand, then: impl FnOnce(Outcome) + Send + 'static) {
        let (said, user, session) = (self.said.clone(), command.user().clone(), command.session());
        let kind = match command {
            StoreCommand::Acquire { .. } => Kind::Acquire,
            StoreCommand::Release { .. } | StoreCommand::Linger { .. } => Kind::Release,
            _ => Kind::Other,
        };
        let then: Then = Box::new(then);
        let answered = move |outcome| {
            let _unheard = said.send(Said::Answered { user, session, command: kind, outcome, then });
        };
        self.store.submit(command, Completion::new(answered));
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // The store may be opened again right after this: the thread must not be the last one to have it.
        let _over = self.said.send(Said::Over);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("a client has failed");
        }
    }
}

fn run(store: &Weak<dyn Store>, hears: &Receiver<Said>, observer: &Sender<Observed>) {
    let mut told = BTreeSet::new();
    for said in hears {
        let Some(store) = store.upgrade() else { return };
        match said {
            Said::Ended(user, ended) => {
                let sessions: Vec<_> = ended.iter().map(|ended| ended.session).collect();
                let _unheard = observer.send(Observed::Ended(ended));
                for session in sessions {
                    told.remove(&(user.clone(), session));
                    store.closed(&user, session);
                }
            }
            Said::Hinted(hints) => {
                let _unheard = observer.send(Observed::Hinted(hints));
            }
            Said::Answered { user, session, command, outcome, then } => {
                let is_granted = matches!(outcome, Outcome::Granted { .. });
                if command == Kind::Acquire && is_granted && told.insert((user.clone(), session)) {
                    tell(&*store, &user, session);
                } else if command == Kind::Release && outcome == Outcome::Released {
                    told.remove(&(user, session));
                }
                then(outcome);
            }
            Said::Over => return,
        }
    }
}

/// What a session does that was granted a slot, see `shell::server::slot_guard`.
fn tell(store: &dyn Store, user: &UserId, session: SessionId) {
    if !store.tell(user, session) {
        store.submit(StoreCommand::Release { user: user.clone(), session }, Completion::new(drop));
    }
}
