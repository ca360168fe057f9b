//! The operations of the simulation, from a seed or from a fuzzer.

use crate::random;
use arbitrary::{Arbitrary, Result, Unstructured};
use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, SlotLimit};
use session_core::protocol::Credential;

use super::faulty_store::StoreFault;
use crate::policies::policy;

/// How many users there are.
pub(super) const USERS: u8 = 24;

/// An admission policy and the operations under it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The admission policy at the start. Its limit is 1 to 4.
    pub policy: AdmissionPolicy,
    /// At most [`Scenario::MAX_OPS`] operations.
    pub ops: Vec<Op>,
}

/// One operation. Each number counts modulo the number of choices, so that a scenario stays valid
/// if operations are left out.
#[derive(Debug, Clone, Arbitrary)]
#[expect(missing_docs, reason = "each field says which of its kind")]
pub enum Op {
    /// A client connects and authenticates.
    Connect { server: u8, user: u8 },
    /// A client connects and sends AUTHENTICATE, CHECK_CONNECTIONS and BYE in one segment.
    ConnectAndLeave { server: u8, user: u8 },
    /// Many clients of a few users connect at once.
    Storm { server: u8, user: u8, clients: u8 },
    /// A client connects and sends nothing.
    Idle { server: u8 },
    /// A client sends AUTHENTICATE, perhaps again.
    Authenticate { client: u8, user: u8 },
    /// A client connects and authenticates with a token that has a limit and expires after these seconds.
    ConnectWithToken { server: u8, user: u8, limit: u8, seconds: u8 },
    /// A client with a slot, if there is one, sends a fresh token, perhaps of another user.
    RenewToken { client: u8, user: u8, seconds: u8 },
    /// A server's wall clock is set to this many seconds ahead of its time, or behind it.
    WallClock { server: u8, seconds: i8 },
    /// A client connects and authenticates with an object: a device, sessions to evict, or a resume token of any client.
    ConnectWithObject { server: u8, user: u8, device: Option<u8>, evict: u8, resume: Option<u8> },
    /// A client sends AUTHENTICATE with an object, perhaps to choose a session after a denial.
    AuthenticateAndEvict { client: u8, evict: u8 },
    /// A client sends LIST_SESSIONS.
    List { client: u8 },
    /// A client ends another session of its user.
    End { client: u8, which: u8 },
    /// The limit changes.
    SetLimit { slots: u8 },
    /// An operator ends the sessions beyond the limit: of the first user who has any, or else of this one.
    Enforce { user: u8 },
    /// A client sends CHECK_CONNECTIONS.
    Check { client: u8 },
    /// A client sends BYE.
    Bye { client: u8 },
    /// A client sends any text.
    Raw { client: u8, text: String },
    /// A client breaks the WebSocket protocol.
    Violate { client: u8, how: u8 },
    /// A client sends a pong.
    Pong { client: u8 },
    /// A client disconnects without BYE.
    Leave { client: u8 },
    /// A client stops answering pings.
    FallSilent { client: u8 },
    /// A client stops reading: its machine takes no data, or still takes it.
    StopReading { client: u8 },
    /// The store handles a command.
    Store { which: u8, fault: StoreFault },
    /// The store becomes full, or has room again.
    StoreFull { full: bool },
    /// The store applies many commands without a fault.
    Work { commands: u8 },
    /// The store sends the answers that it held back.
    LateAnswers,
    /// Time passes.
    Pass { millis: u16 },
    /// A server is killed.
    Kill { server: u8 },
    /// A dead or stopped server is started.
    Start { server: u8 },
    /// A server is paused. Its clock goes on.
    Pause { server: u8 },
    /// A paused server continues.
    Resume { server: u8 },
    /// A server drains.
    Drain { server: u8 },
    /// A server's clock changes its rate, to 0.2 to 2.2 times that of the simulation.
    ClockRate { server: u8, per_mille: u16 },
    /// A server's clock jumps forward.
    ClockJump { server: u8, millis: u16 },
    /// A client connects, or several do, and waits in line for up to these seconds if it finds no slot.
    ConnectAndWait { server: u8, user: u8, seconds: u8, how: u8 },
    /// A client with a slot, if there is one, watches the sessions of its user, or ceases to.
    Watch { client: u8, is_on: bool },
    /// From now on the hints of the store are lost, or arrive again.
    LoseHints { is_on: bool },
}

impl Scenario {
    /// The most operations of a scenario.
    pub const MAX_OPS: usize = 400;

    /// The scenario of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random(random::Random::new(seed ^ 0x9e37_79b9_7f4a_7c15));
        let limit = SlotLimit::new(1 + random.below(4)).expect("four is below the ceiling");
        let policy = policy(limit, random.byte());
        let ops = 40 + random.below(260);
        // Each seed has its own weights: how often the store and the servers fail, and how many users there are.
        let users = [2, 6, u32::from(USERS)][random.below(3) as usize];
        let weights = Weights { store: random.below(100), servers: random.below(100), users };
        Self { policy, ops: (0..ops).map(|_| random.op(&weights)).collect() }
    }
}

impl<'a> Arbitrary<'a> for Scenario {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let limit = SlotLimit::new(bytes.int_in_range(1..=4)?).expect("four is below the ceiling");
        let policy = policy(limit, bytes.arbitrary()?);
        Ok(Self { policy, ops: bytes.arbitrary_iter()?.take(Self::MAX_OPS).collect::<Result<_>>()? })
    }
}

impl Op {
    /// The kind of operation, for counting.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::ConnectWithToken { .. } => "token",
            Self::RenewToken { .. } => "fresh token",
            Self::WallClock { .. } => "wall clock set",
            Self::ConnectWithObject { .. } => "object",
            Self::AuthenticateAndEvict { .. } => "choice",
            Self::List { .. } | Self::End { .. } => "sessions managed",
            Self::SetLimit { .. } => "limit set",
            Self::Enforce { .. } => "limit enforced",
            Self::Connect { .. } | Self::ConnectAndLeave { .. } | Self::Idle { .. } => "connect",
            Self::Storm { .. } => "storm",
            Self::Authenticate { .. } | Self::Check { .. } | Self::Bye { .. } => "message",
            Self::Raw { .. } => "raw message",
            Self::Violate { .. } => "violation",
            Self::Pong { .. } => "pong",
            Self::Leave { .. } => "lost socket",
            Self::FallSilent { .. } => "fall silent",
            Self::StopReading { .. } => "stop reading",
            Self::Store { .. } => "store step",
            Self::StoreFull { .. } => "store full or not",
            Self::Work { .. } => "store well for a while",
            Self::LateAnswers => "late answers",
            Self::Pass { .. } => "time",
            Self::Kill { .. } => "kill",
            Self::Start { .. } => "start",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Drain { .. } => "drain",
            Self::ClockRate { .. } => "clock rate",
            Self::ClockJump { .. } => "clock jump",
            Self::ConnectAndWait { .. } => "connect to wait",
            Self::Watch { .. } => "watch",
            Self::LoseHints { .. } => "hints lost or not",
        }
    }
}

struct Weights {
    store: u32,
    servers: u32,
    users: u32,
}

/// Draws operations.
struct Random(random::Random);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below the bound, nearly uniform.
    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32)
            .expect("the product's upper half is below the bound")
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("it is below 256")
    }

    fn short(&mut self) -> u16 {
        u16::try_from(self.below(65536)).expect("it is below 65536")
    }

    fn op(&mut self, weights: &Weights) -> Op {
        let (server, client) = (self.byte(), self.byte());
        let user = u8::try_from(self.below(weights.users)).expect("there are few");
        match self.below(1000) {
            0..50 => Op::Connect { server, user },
            50..100 => {
                let device = Some(self.byte()).filter(|device| device % 2 == 0);
                let resume = Some(self.byte()).filter(|_| self.below(3) == 0);
                Op::ConnectWithObject { server, user, device, evict: self.byte(), resume }
            }
            100..140 => Op::ConnectWithToken { server, user, limit: self.byte(), seconds: self.byte() },
            140..160 => Op::RenewToken { client, user, seconds: self.byte() },
            160..200 => Op::ConnectAndLeave { server, user },
            200..210 => Op::Storm { server, user, clients: self.byte() },
            210..230 => Op::End { client, which: self.byte() },
            230..240 => Op::Idle { server },
            240..270 => Op::Authenticate { client, user },
            270..280 => Op::Check { client },
            280..290 => Op::AuthenticateAndEvict { client, evict: self.byte() },
            290..295 => Op::List { client },
            295..303 => Op::End { client, which: self.byte() },
            303..308 => Op::SetLimit { slots: self.byte() },
            308..316 => Op::Enforce { user },
            316..380 => Op::Bye { client },
            380..390 => Op::Raw { client, text: "{\"type\":\"?\"}".into() },
            390..400 => Op::Violate { client, how: self.byte() },
            400..410 => Op::Pong { client },
            410..470 => Op::Leave { client },
            470..480 => Op::FallSilent { client },
            480..490 => Op::StopReading { client },
            490..540 => Op::ConnectAndWait { server, user, seconds: self.byte(), how: self.byte() },
            540..548 => Op::Watch { client, is_on: self.below(4) > 0 },
            548..552 => Op::LoseHints { is_on: self.below(2) == 0 },
            552..800 => Op::Store { which: self.byte(), fault: self.fault(weights) },
            800..805 => Op::StoreFull { full: self.below(2) == 0 },
            805..815 => Op::LateAnswers,
            815..820 => Op::WallClock { server, seconds: self.byte().cast_signed() },
            820..860 => Op::Pass { millis: self.short() / 64 },
            860..915 => Op::Work { commands: self.byte() },
            915..930 => Op::Pass { millis: self.short() },
            _ if self.below(100) >= weights.servers => Op::Store { which: client, fault: StoreFault::Apply },
            930..940 => Op::Kill { server },
            940..960 => Op::Start { server },
            960..968 => Op::Pause { server },
            968..978 => Op::Resume { server },
            978..984 => Op::Drain { server },
            984..992 => Op::ClockRate { server, per_mille: self.short() },
            _ => Op::ClockJump { server, millis: self.short() },
        }
    }

    fn fault(&mut self, weights: &Weights) -> StoreFault {
        const FAULTS: [StoreFault; 8] = [
            StoreFault::ApplySilently,
            StoreFault::ApplyUnknown,
            StoreFault::Reject,
            StoreFault::Drop,
            StoreFault::DropSilently,
            StoreFault::Postpone,
            StoreFault::Doubt,
            StoreFault::Begin,
        ];
        if self.below(100) >= weights.store { StoreFault::Apply } else { FAULTS[self.below(8) as usize] }
    }
}

pub(super) fn credential(user: u8) -> Credential {
    Credential::new(user_id(user).as_str())
}

pub(super) fn user_id(user: u8) -> UserId {
    UserId::parse(&format!("user {}", user % USERS)).expect("a good id")
}
