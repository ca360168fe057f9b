//! Time passes, tasks run, and clients read.

use std::fmt::Write as _;
use std::time::Duration;

use session_core::protocol::ServerMessage;

use super::cluster::Simulation;
use super::server::Server;
use super::socket::ServerOutput;

impl Simulation {
    /// Lets time pass, from timer to timer.
    pub(super) fn pass(&mut self, duration: Duration) {
        self.pass_until(duration, |_| false);
    }

    /// Lets time pass until the duration ends or the condition holds.
    pub(super) fn pass_until(&mut self, duration: Duration, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + duration;
        for _ in 0..100_000 {
            if is_so(self) {
                return;
            }
            let alarms = self.servers.iter().filter_map(Server::next_timer).min();
            let step = alarms.filter(|&step| self.now + step <= end).unwrap_or_else(|| end.since(self.now));
            self.now = self.now + step;
            self.store.set_now(self.now);
            for server in &self.servers {
                server.advance(step);
            }
            self.run_tasks();
            if self.healed {
                self.recover();
            }
            if self.now == end && !self.servers.iter().any(Server::is_due) {
                return;
            }
        }
        panic!("time stands still at {}: a timer is set again at once", self.now);
    }

    /// Runs woken tasks and delivers output to the clients, until no task is woken.
    pub(super) fn run_tasks(&mut self) {
        for _ in 0..10_000 {
            let mut is_quiet = true;
            for server in self.servers.iter_mut().filter(|server| server.is_running()) {
                server.tasks.retain(|_, task| {
                    if !task.take_woken() {
                        return true;
                    }
                    is_quiet = false;
                    task.poll()
                });
            }
            is_quiet &= !self.deliver_output();
            if is_quiet {
                self.clients.retain(|_, client| client.closed.is_none() && client.socket.is_open());
                return;
            }
        }
        panic!("the tasks never come to rest");
    }

    /// Delivers the output of the servers to the clients. Returns whether a client answered.
    fn deliver_output(&mut self) -> bool {
        let Self { clients, trace, resume_tokens, closed_sessions, .. } = self;
        let mut has_answered = false;
        for client in clients.values_mut() {
            for output in client.socket.take_output() {
                if let Some(lines) = &mut trace.lines {
                    let _infallible = writeln!(lines, "    {} hears {output:?}", client.session);
                }
                if let ServerOutput::Reply(ServerMessage::AuthenticateSuccessDetailed(admission)) = &output
                    && let Some(token) = admission.resume
                {
                    resume_tokens.push((admission.user.id.clone(), token));
                }
                if matches!(output, ServerOutput::Close(_)) {
                    closed_sessions.insert(client.session);
                }
                has_answered |= client.receive(&output, trace);
            }
        }
        has_answered
    }
}
