//! What has happened in simulated histories, so that a test can tell what it has not met.

use std::collections::{BTreeMap, BTreeSet};

use session_core::cluster::{AnswerBody, FenceReason, Request};
use session_core::ledger::Outcome;

/// Something that may happen in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "their names say what they are")]
pub enum Event {
    // Faults. Their pairs are counted.
    Killed,
    Paused,
    Unreachable,
    Slow,
    ConnectionLost,
    FailOver,
    RestartedEmpty,
    RestartedFromDisk,
    Flushed,
    StoreFails,
    StoreRefusesWrites,
    Split,
    Stopped,
    // What becomes of them.
    Healed,
    Start,
    RestartWithId,
    CallTimedOut,
    LateWriteApplied,
    LateWriteRefused,
    HintLost,
    Fenced(FenceReason),
    // Requests, as they were sent.
    Beat,
    Bury,
    BuryFormer,
    Open,
    Leave,
    Forget,
    RaiseFloor,
    Read,
    Write,
    Scan,
    ReadOverrides,
    WriteOverrides,
    RestoreOverrides,
    // Their answers.
    NotConfirmed,
    NotDone,
    NotWritten,
    Failed,
    // Clients.
    Told,
    NotTold,
    ToldSessionEnded,
    Left,
    Lost,
    Withdrawn,
    Granted,
    Denied,
    Waiting,
    Rejected,
    Unknown,
    Resumed,
    // Operators.
    OverridesSet,
    OverridesRejected,
    OverridesUnknown,
    SessionsEnded,
}

impl Event {
    /// The faults.
    pub const FAULTS: [Self; 13] = *Self::ALL.first_chunk().expect("the faults come first");

    /// What every long run has to meet. The faults come first.
    pub const ALL: [Self; 55] = [
        Self::Killed,
        Self::Paused,
        Self::Unreachable,
        Self::Slow,
        Self::ConnectionLost,
        Self::FailOver,
        Self::RestartedEmpty,
        Self::RestartedFromDisk,
        Self::Flushed,
        Self::StoreFails,
        Self::StoreRefusesWrites,
        Self::Split,
        Self::Stopped,
        Self::Healed,
        Self::Start,
        Self::RestartWithId,
        Self::CallTimedOut,
        Self::LateWriteApplied,
        Self::LateWriteRefused,
        Self::HintLost,
        Self::Fenced(FenceReason::NotConfirmed),
        Self::Fenced(FenceReason::Buried),
        Self::Beat,
        Self::Bury,
        Self::BuryFormer,
        Self::Open,
        Self::Leave,
        Self::Forget,
        Self::RaiseFloor,
        Self::Read,
        Self::Write,
        Self::Scan,
        Self::ReadOverrides,
        Self::WriteOverrides,
        Self::RestoreOverrides,
        Self::NotConfirmed,
        Self::NotDone,
        Self::NotWritten,
        Self::Failed,
        Self::Told,
        Self::NotTold,
        Self::ToldSessionEnded,
        Self::Left,
        Self::Lost,
        Self::Withdrawn,
        Self::Granted,
        Self::Denied,
        Self::Waiting,
        Self::Rejected,
        Self::Unknown,
        Self::Resumed,
        Self::OverridesSet,
        Self::OverridesRejected,
        Self::OverridesUnknown,
        Self::SessionsEnded,
    ];
}

/// What has happened in one history.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    events: BTreeMap<Event, u64>,
}

impl Coverage {
    /// This has happened.
    pub fn saw(&mut self, event: Event) {
        *self.events.entry(event).or_default() += 1;
    }

    /// Whether such a thing has happened.
    pub fn has_seen(&self, is_wanted: impl Fn(Event) -> bool) -> bool {
        self.events.keys().any(|event| is_wanted(*event))
    }

    /// How often each thing has happened.
    pub fn counts(&self) -> impl Iterator<Item = (Event, u64)> {
        self.events.iter().map(|(event, count)| (*event, *count))
    }

    pub(crate) fn asked(&mut self, request: &Request) {
        self.saw(match request {
            Request::Beat { .. } => Event::Beat,
            Request::Bury { beat: Some(_), .. } => Event::Bury,
            Request::Bury { beat: None, .. } => Event::BuryFormer,
            Request::Open(_) => Event::Open,
            Request::Leave { .. } => Event::Leave,
            Request::Forget { .. } => Event::Forget,
            Request::RaiseFloor { .. } => Event::RaiseFloor,
            Request::Read(_) => Event::Read,
            Request::Write(_) => Event::Write,
            Request::Scan { .. } => Event::Scan,
            Request::ReadOverrides => Event::ReadOverrides,
            Request::WriteOverrides(_) => Event::WriteOverrides,
            Request::RestoreOverrides { .. } => Event::RestoreOverrides,
        });
    }

    pub(crate) fn applied(&mut self, request: &Request, answer: &AnswerBody) {
        match (request, answer) {
            (_, AnswerBody::Failed(_)) => self.saw(Event::Failed),
            (_, AnswerBody::Done(false)) => self.saw(Event::NotDone),
            (_, AnswerBody::Beat(answer)) if !answer.is_confirmed => self.saw(Event::NotConfirmed),
            (Request::Write(_), AnswerBody::Record(answer)) if !answer.is_written => self.saw(Event::NotWritten),
            _ => {}
        }
    }

    pub(super) fn answered(&mut self, outcome: &Outcome) {
        if let Outcome::Granted { grant: Some(grant), .. } = outcome
            && grant.resume == session_core::ledger::Resumption::Resumed
        {
            self.saw(Event::Resumed);
        }
        match outcome {
            Outcome::Granted { .. } => self.saw(Event::Granted),
            Outcome::Denied(_) => self.saw(Event::Denied),
            Outcome::Waiting(_) => self.saw(Event::Waiting),
            Outcome::Rejected(_) => self.saw(Event::Rejected),
            Outcome::Unknown => self.saw(Event::Unknown),
            _ => {}
        }
    }
}

/// What has happened in many histories.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    histories: u64,
    events: BTreeMap<Event, (u64, u64)>,
    pairs: BTreeMap<(Event, Event), u64>,
}

impl Summary {
    /// Adds what has happened in one more history.
    pub fn add(&mut self, history: &Coverage) {
        self.histories += 1;
        for (&event, count) in &history.events {
            let (histories, all) = self.events.entry(event).or_default();
            (*histories, *all) = (*histories + 1, *all + count);
        }
        let faults: Vec<_> = Event::FAULTS.into_iter().filter(|fault| history.events.contains_key(fault)).collect();
        for (index, &first) in faults.iter().enumerate() {
            for &second in &faults[index + 1..] {
                *self.pairs.entry((first, second)).or_default() += 1;
            }
        }
    }

    /// Adds what has happened in other histories.
    pub fn merge(&mut self, other: Self) {
        self.histories += other.histories;
        for (event, (histories, times)) in other.events {
            let (sum, all) = self.events.entry(event).or_default();
            (*sum, *all) = (*sum + histories, *all + times);
        }
        for (pair, histories) in other.pairs {
            *self.pairs.entry(pair).or_default() += histories;
        }
    }

    /// The events, and the pairs of faults in one history, that were not met.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let events =
            Event::ALL.into_iter().filter(|event| !self.events.contains_key(event)).map(|event| format!("{event:?}"));
        let seen: BTreeSet<_> = self.pairs.keys().copied().collect();
        let pairs = Event::FAULTS.into_iter().enumerate();
        let pairs =
            pairs.flat_map(|(index, first)| Event::FAULTS[index + 1..].iter().map(move |&second| (first, second)));
        let pairs =
            pairs.filter(|pair| !seen.contains(pair)).map(|(first, second)| format!("{first:?} with {second:?}"));
        events.chain(pairs).collect()
    }

    /// One line for each event: in how many histories it has happened, and how often in all. Then the rarest pair of faults.
    #[must_use]
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut table = format!("{:<28} {:>12} {:>14}\n", "event", "histories", "times");
        for (event, (histories, times)) in &self.events {
            let _ = writeln!(table, "{:<28} {histories:>12} {times:>14}", format!("{event:?}"));
        }
        if let Some(((first, second), histories)) = self.pairs.iter().min_by_key(|(_, histories)| **histories) {
            let _ = writeln!(
                table,
                "rarest pair of faults: {first:?} with {second:?}, in {histories} of {} histories",
                self.histories
            );
        }
        table
    }
}
