//! The invariants that hold after every step, and those that hold after recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::time::Duration;

use session_core::connection_limiter::ConnectionLimits;
use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{StoreCommand, WhenFull};
use session_core::protocol::{AuthenticateOptions, ClientMessage, Credential};
use session_core::release_tracker::ReleaseTracker;
use session_core::session::Session;
use session_core::{ResumeToken, SessionId, Timestamp};

use super::client::Client;
use super::cluster::{MAX_WAIT, SERVERS, SETTINGS, Simulation, TRACKER_CAPACITY};
use super::faulty_store::StoreFault;
use super::scenario::{USERS, credential, user_id};
use super::server::{Server, Status};
use super::socket::{Attention, ClientInput};
use crate::policies::LINGER;

impl Simulation {
    /// Checks the invariants that hold after every step.
    pub(super) fn check(&mut self) {
        self.store.check();
        self.told_sockets.check();
        for (what, count) in self.store.take_counts() {
            *self.trace.counts.entry(what).or_insert(0) += count;
        }
        for _ in 0..self.told_sockets.cut.take() {
            self.count("cut, not told");
        }
        for _ in 0..self.told_sockets.pauses.take() {
            self.count("pause while served");
        }
        let slots: BTreeSet<_> = self.store.live_slots().into_iter().map(|(_, session)| session).collect();
        let in_line = self.store.in_line();
        for client in self.clients.values().filter(|client| client.granted) {
            // A paused server notifies no client.
            let is_paused = |server: &Server| server.node == client.node && server.status == Status::Paused;
            let is_yet_to_hear = self.store.has_ended(client.session) && self.servers.iter().any(is_paused);
            assert!(
                slots.contains(&client.session) || is_yet_to_hear,
                "session {} was granted a slot that is not in the store",
                client.session
            );
        }
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let is_in = |client: &&Client| client.granted || client.waits.is_some();
            for client in self.clients.values().filter(is_in).filter(|client| client.node == server.node) {
                client.check_token(server);
            }
        }
        for server in self.servers.iter().filter(|server| server.status != Status::Dead) {
            let is_own = |session: &&SessionId| session.node() == server.node;
            let (slots, places) = (slots.iter().filter(is_own).count(), in_line.iter().filter(is_own).count());
            let (tracked, pending) = (server.store_client().tracked(), server.store_client().pending());
            assert!(
                slots + places <= tracked,
                "node {} has {slots} slots and {places} places in line, and tracks {tracked}",
                server.node
            );
            assert!(
                pending <= tracked && tracked <= TRACKER_CAPACITY,
                "node {} has {pending} pending releases and tracks {tracked}",
                server.node
            );
        }
    }

    /// Checks, when the store begins to apply a command, that it takes no slot for a client that has been closed.
    pub(super) fn check_is_wanted(&self, command: &StoreCommand) {
        let session = command.session();
        let is_acquire = matches!(command, StoreCommand::Acquire { .. });
        let is_wanted = !is_acquire || !self.closed_sessions.contains(&session);
        assert!(is_wanted, "an acquire of session {session} is applied although its client was refused");
    }

    /// Ends all faults, disconnects all clients, and checks that all slots become free in time.
    pub(super) fn check_recovery(&mut self) {
        self.trace(|| "the faults end".into());
        self.healed = true;
        self.store.set_full(false);
        self.store.set_limit(self.policy.limit);
        for client in self.clients.values() {
            client.socket.set_attention(Attention::Full);
        }
        for server in 0..SERVERS {
            self.servers[server].rate = 1000;
            match self.servers[server].status {
                Status::Paused => self.resume(server),
                Status::Dead => self.start(server),
                Status::Up | Status::Draining => {}
            }
        }
        self.store.answer_all_late();
        for server in &self.servers {
            server.connection_limiter.set_limits(ConnectionLimits::default());
        }
        self.run_tasks();
        self.recover();
        self.check_line();

        // Pending releases are confirmed within the longest backoff.
        let healed = self.now;
        self.pass_until(ReleaseTracker::LONGEST_BACKOFF, |simulation| {
            simulation.servers.iter().all(|server| server.store_client().pending() == 0)
        });
        for server in &self.servers {
            assert_eq!(
                server.store_client().pending(),
                0,
                "a release of node {} was not confirmed in time",
                server.node
            );
        }
        self.reclaimed("a pending release", healed);
        // No pause is longer than a minute. Then a grant waits for a client that takes no data, and no longer.
        self.pass_until(Duration::from_secs(60) + LeavingTracker::CUT_AFTER, |simulation| {
            !simulation.told_sockets.is_any_paused() && !simulation.clients.values().any(Client::is_owed_answer)
        });
        for client in self.clients.values() {
            assert!(!client.is_owed_answer(), "session {} never gets an answer", client.session);
        }
        assert!(self.store.in_line().is_empty(), "these still wait: {:?}", self.store.in_line());

        // BYE and a lost socket free the slot at once, silence after its timeout.
        let left = self.now;
        let mut silent = 0;
        for (number, client) in &mut self.clients {
            match number % 3 {
                0 => client.socket.send(ClientInput::Text(ClientMessage::Bye.encode())),
                1 => client.leave(),
                _ => {
                    client.answers_pings = false;
                    silent += u32::from(client.granted);
                }
            }
        }
        self.run_tasks();
        self.recover();
        assert_eq!(self.store.live_slots().len(), silent as usize, "the slots are not those of the silent clients");
        self.reclaimed("BYE, or a lost socket", left);
        self.pass_until(SETTINGS.ping_interval + SETTINGS.pong_timeout, |simulation| {
            simulation.store.live_slots().is_empty()
        });
        assert!(self.store.live_slots().is_empty(), "these slots were never released: {:?}", self.store.live_slots());
        self.reclaimed("silence", left);
        // The last sockets have time to answer the close, or to choose a session to evict.
        self.pass_until(SETTINGS.auth_timeout + Session::RETRY_WINDOW, |simulation| {
            simulation.servers.iter().all(|server| server.registry.is_empty())
        });

        for server in 0..SERVERS {
            assert_eq!(self.servers[server].registry.len(), 0, "a connection never ended");
            assert_eq!(
                self.servers[server].connection_limiter.counts(),
                (0, 0),
                "the limiter counts a connection that has ended"
            );
            assert_eq!(self.servers[server].connection_limiter.tracked_users(), 0, "a user has lost its connections");
            assert_eq!(self.servers[server].store_client().tracked(), 0, "a session is still tracked");
            if self.servers[server].status == Status::Draining {
                self.kill(server);
                self.start(server);
            }
        }
        // Lingering sessions lapse.
        self.pass(LINGER + Duration::from_secs(1));
        self.store.sweep();
        for user in 0..USERS {
            let left = self.store.holds_of(&user_id(user));
            assert!(left.is_empty(), "a session never lapses: {left:?}");
        }
        self.clients.clear();
        for user in 0..USERS {
            assert!(self.is_admitted(user, user), "a new session was not admitted at the first attempt");
        }
        self.check();
        self.check_slots_after_crash();
        self.check_resume_after_crash();
    }

    /// Some clients leave. Checks that those in line get the slots that become free, also if all hints are lost: each asks again
    /// by itself.
    fn check_line(&mut self) {
        // Every ten seconds, and one second is for a request that is under way.
        const LONGEST: Duration = Duration::from_secs(11);

        for client in self.clients.values_mut().filter(|client| client.granted).step_by(2) {
            client.leave();
        }
        self.run_tasks();
        self.recover();
        let mut called = BTreeMap::<SessionId, Timestamp>::new();
        for _ in 0..MAX_WAIT.as_secs() + 5 {
            let now_called = self.store.called();
            called.retain(|session, _| now_called.contains(session));
            for session in now_called {
                let since = called.entry(session).or_insert(self.now);
                // A paused connection does not ask.
                if self.told_sockets.is_any_paused() {
                    *since = self.now;
                }
                assert!(self.now.since(*since) <= LONGEST, "{session} waits in line beside a free slot");
            }
            self.pass(Duration::from_secs(1));
        }
        self.count(if called.is_empty() { "nobody waits beside a free slot" } else { "somebody was called just now" });
    }

    /// Checks that the slots of a killed server are free at once, and no others.
    fn check_slots_after_crash(&mut self) {
        const USER: u8 = 0;

        // With `evict-oldest` no session is ever denied.
        if self.policy.effective_when_full() == WhenFull::EvictOldest {
            return;
        }
        for server in 0..3 {
            while self.is_admitted(server, USER) {}
            let full = self.slots_of(USER);
            let crashed = self.now;
            self.kill(usize::from(server));
            assert!(self.slots_of(USER) < full, "the slots of a killed server are still taken");
            while self.is_admitted(server + 1, USER) {}
            assert_eq!(self.slots_of(USER), full, "the slots of a killed server are not all free at once");
            self.reclaimed("a crash", crashed);
            self.start(usize::from(server));
        }
        self.check();
    }

    /// Checks that the clients of a killed server can resume, repeatedly, also when the user has no free slot; and that
    /// a resume admits no additional session.
    fn check_resume_after_crash(&mut self) {
        const USER: u8 = 1;

        if self.policy.linger.is_zero() {
            return;
        }
        let user = user_id(USER);
        for server in 0..3 {
            for client in self.clients.values_mut() {
                client.leave();
            }
            self.run_tasks();
            self.recover();
            self.pass(LINGER);
            let known = self.resume_tokens.len();
            for _ in 0..self.policy.limit.slots() {
                let _admitted = self.is_accepted(server, &authenticate_with_object(USER, None));
            }
            let tokens = self.resume_tokens.split_off(known);
            self.kill(usize::from(server));
            if server == 2 {
                // In the last millisecond.
                self.pass(LINGER.saturating_sub(Duration::from_millis(1)));
            }
            let lost = self.store.holds_of(&user);
            let mut resumed = 0;
            for (_, token) in tokens {
                // A session that a later one evicted has no slot.
                if !lost.iter().any(|entry| entry.resumable().is_some_and(|resumable| resumable.key == token.key())) {
                    continue;
                }
                for _ in 0..2 {
                    assert!(
                        self.is_accepted(server + 1, &authenticate_with_object(USER, Some(token))),
                        "a resume failed"
                    );
                    let sessions = self.store.holds_of(&user);
                    assert_eq!(sessions.len(), lost.len(), "a resume changed the number of sessions");
                }
                resumed += 1;
            }
            assert!(resumed > 0, "no client resumed");
            self.count("resumed after a crash");
            let full = self.slots_of(USER);
            if self.policy.effective_when_full() == WhenFull::Deny {
                assert!(!self.is_admitted(server + 1, USER), "a slot was free beside {full} resumed ones");
            }
            self.start(usize::from(server));
        }
        self.check();
    }

    fn slots_of(&self, user: u8) -> usize {
        let user = user_id(user);
        self.store.live_slots().into_iter().filter(|(holder, _)| *holder == user).count()
    }

    /// Whether the user is admitted at the first try, while the store is well.
    fn is_admitted(&mut self, server: u8, user: u8) -> bool {
        self.is_accepted(server, &ClientMessage::Authenticate(credential(user)))
    }

    fn is_accepted(&mut self, server: u8, request: &ClientMessage) -> bool {
        self.connect(server, slice::from_ref(request));
        self.run_tasks();
        self.recover();
        self.clients.last_key_value().is_some_and(|(_, client)| client.granted)
    }

    /// The store applies all its commands without faults.
    pub(super) fn recover(&mut self) {
        while !self.store.is_idle() {
            let _outcome = self.store.step(0, StoreFault::Apply);
            self.run_tasks();
        }
        self.check();
    }

    fn reclaimed(&mut self, cause: &'static str, since: Timestamp) {
        let took = self.now.since(since);
        self.trace.reclaimed.insert(cause, took);
    }
}

/// AUTHENTICATE with an object, perhaps to resume a session.
fn authenticate_with_object(user: u8, resume: Option<ResumeToken>) -> ClientMessage {
    let credential = Credential::User(user_id(user).as_str().into());
    ClientMessage::AuthenticateWith(
        credential,
        Box::new(AuthenticateOptions { resume, ..AuthenticateOptions::default() }),
    )
}
