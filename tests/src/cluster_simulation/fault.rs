//! What goes wrong, and how the world comes to rest.

use super::coverage::Event;
use super::machine::ClientState;
use super::world::{BEAT_MS, LEASE_MS, World};
use crate::random::Random;

impl World {
    /// Something goes wrong, or is mended.
    pub(super) fn fault(&mut self, index: usize, random: &mut Random) {
        let shard = random.index(self.shards.len());
        let long = 50 + random.below(900);
        let which = random.below(22);
        if self.prints {
            println!("{} fault {which} at machine {index}, shard {shard}", self.now);
        }
        match which {
            0 | 1 => self.kill(index, random),
            2..5 => {
                if self.machines[index].process.is_none() {
                    self.start(index);
                }
            }
            5 | 6 => {
                self.coverage.saw(Event::Paused);
                self.machines[index].paused_until = self.now + long;
            }
            7 | 8 => {
                self.coverage.saw(Event::Unreachable);
                self.machines[index].unreachable_until[shard] = self.now + long;
            }
            9 | 10 => {
                self.coverage.saw(Event::ConnectionLost);
                self.reconnect(index, shard);
            }
            11 => {
                self.coverage.saw(Event::FailOver);
                self.shards[shard].fail_over();
                self.break_connections(shard);
            }
            12 => {
                self.coverage.saw(Event::RestartedEmpty);
                self.shards[shard].restart_empty();
                self.break_connections(shard);
            }
            13 => {
                self.coverage.saw(Event::RestartedFromDisk);
                self.shards[shard].restart_saved();
                self.break_connections(shard);
            }
            14 => self.shards[shard].save(),
            15 => {
                self.coverage.saw(Event::Flushed);
                self.shards[shard].flush();
                self.forgets(shard);
            }
            16 if random.one_in(2) => {
                self.coverage.saw(Event::StoreRefusesWrites);
                self.shards[shard].read_only_until = self.now + random.below(300);
            }
            16 => {
                self.coverage.saw(Event::StoreFails);
                self.shards[shard].fails_until = self.now + random.below(300);
            }
            17 if self.may_split() && self.shards[shard].former.is_none() => {
                self.coverage.saw(Event::Split);
                self.shards[shard].split(self.now);
                self.forgets(shard);
                self.machines[index].at_former[shard] = true;
                for other in (0..self.machines.len()).filter(|other| *other != index) {
                    self.reconnect(other, shard);
                }
            }
            18 => self.heal(shard),
            19 | 20 => {
                self.coverage.saw(Event::Slow);
                self.machines[index].slow_until = self.now + long;
            }
            _ => self.stop(index),
        }
    }

    pub(super) fn break_connections(&mut self, shard: usize) {
        self.heal(shard);
        self.forgets(shard);
        // Nothing of before reaches the new primary.
        for machine in &mut self.machines {
            if let Some(process) = &mut machine.process {
                process.connections[shard].sent.clear();
            }
        }
        for index in 0..self.machines.len() {
            self.reconnect(index, shard);
        }
    }

    fn heal(&mut self, shard: usize) {
        if self.shards[shard].former.take().is_none() {
            return;
        }
        self.coverage.saw(Event::Healed);
        self.forgets(shard);
        let shards = self.shards.len();
        for late in &mut self.late {
            late.retain(|(sent, at_former)| !at_former || usize::from(sent.bucket) % shards != shard);
        }
        for index in 0..self.machines.len() {
            if self.machines[index].at_former[shard] {
                if let Some(process) = &mut self.machines[index].process {
                    process.connections[shard].sent.clear();
                }
                self.machines[index].at_former[shard] = false;
                self.reconnect(index, shard);
            }
        }
    }

    fn kill(&mut self, index: usize, random: &mut Random) {
        let machine = &mut self.machines[index];
        let Some(process) = machine.process.take() else { return };
        self.coverage.saw(Event::Killed);
        for (connection, &at_former) in process.connections.into_iter().zip(&machine.at_former) {
            if !connection.sent.is_empty() {
                self.late.push(connection.sent.into_iter().map(|sent| (sent, at_former)).collect());
            }
        }
        if random.one_in(2) {
            machine.id_file = None;
        }
    }

    /// A process stops, if it has nothing left to do.
    fn stop(&mut self, index: usize) {
        let machine = &self.machines[index];
        let Some(process) = machine.process.as_ref().filter(|_| machine.runs(self.now)) else { return };
        let is_idle = process.clients.is_empty()
            && process.owed.is_empty()
            && process.buckets.iter().all(session_core::cluster::Bucket::is_idle);
        if !is_idle {
            return;
        }
        self.coverage.saw(Event::Stopped);
        let buckets = u16::try_from(process.buckets.len()).expect("there are few");
        for bucket in 0..buckets {
            self.handle(index, bucket, session_core::cluster::BucketEvent::Leaves);
        }
        let machine = &mut self.machines[index];
        if let Some(process) = machine.process.take() {
            for (connection, &at_former) in process.connections.into_iter().zip(&machine.at_former) {
                self.late.push(connection.sent.into_iter().map(|sent| (sent, at_former)).collect());
            }
        }
    }

    /// Nothing fails any more. Time passes until all must be well.
    ///
    /// # Errors
    /// What is not well.
    pub fn settle(&mut self) -> Result<(), String> {
        let mut random = Random::new(self.now);
        for shard in 0..self.shards.len() {
            self.heal(shard);
            (self.shards[shard].fails_until, self.shards[shard].read_only_until) = (0, 0);
        }
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            (machine.paused_until, machine.slow_until) = (0, 0);
            machine.unreachable_until.fill(0);
            if machine.process.is_none() && (index == 0 || random.one_in(2)) {
                self.start(index);
            }
        }
        // A generation may begin late, then its gate opens, and what the scrub finds is removed at a beat.
        self.calm(4 * LEASE_MS + 10 * BEAT_MS, &mut random)?;
        self.late.clear();
        for _ in 0..10 {
            self.stop_waiting();
            self.calm(BEAT_MS, &mut random)?;
        }
        if self.settings.forgets {
            // Ids of which the last sessions waited in line have just left.
            self.calm(LEASE_MS + 4 * BEAT_MS, &mut random)?;
        }
        self.check_settled()
    }

    /// For so long nothing fails that does not already, and everybody does soon what is to be done.
    ///
    /// # Errors
    /// What does not hold any more.
    pub(super) fn calm(&mut self, millis: u64, random: &mut Random) -> Result<(), String> {
        let end = self.now + millis;
        while self.now < end {
            self.now += 10;
            if random.one_in(4) {
                self.late_one(random);
            }
            for _ in 0..6 {
                for index in 0..self.machines.len() {
                    self.tick(index);
                    for shard in 0..self.shards.len() {
                        for _ in 0..8 {
                            self.apply_next(index, shard);
                            self.answer_next(index, shard);
                        }
                    }
                    for _ in 0..4 {
                        self.tell_one(index, random);
                        self.close_one(index, random);
                        self.release_owed(index);
                    }
                    self.check()?;
                }
                self.hint_one(random);
            }
            if random.one_in(10) {
                for index in 0..self.machines.len() {
                    self.ask_again(index, random);
                }
            }
        }
        Ok(())
    }

    /// The clients in line leave: nobody has promised them a slot.
    fn stop_waiting(&mut self) {
        for index in 0..self.machines.len() {
            let at = self.machines[index].clock(self.now);
            let Some(process) = &mut self.machines[index].process else { continue };
            let waiting: Vec<_> =
                process.clients.iter().filter(|(_, client)| client.state == ClientState::InLine).collect();
            let Some((session, client)) = waiting.first().map(|(session, client)| (**session, (*client).clone()))
            else {
                continue;
            };
            process.clients.remove(&session);
            let event = process.release(session, &client, false, at);
            self.handle(index, client.bucket, event);
        }
    }
}
