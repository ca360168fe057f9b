//! Values that many tests use.

use std::fmt::Display;
use std::net::{IpAddr, TcpListener};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use session_core::connection_limiter::ConnectionLimits;
use session_core::ledger::SessionNames;
use session_core::ledger::SlotLimit;
use session_core::protocol::UserSummary;
use session_core::protocol::{AuthenticateOptions, ClientMessage};
use session_core::{DisplayName, Timestamp, UserId};

/// The smallest difference between two times.
pub const NANOSECOND: Duration = Duration::from_nanos(1);

/// The user `ada`.
#[must_use]
pub fn user() -> UserId {
    UserId::parse("ada").expect("a good id")
}

/// The user `ada` and her number of connections.
#[must_use]
pub fn user_summary(connections: u32) -> UserSummary {
    UserSummary { id: user(), connections }
}

/// The id of one of many users, of more than 200 bytes. Long ids fill pages of a store.
#[must_use]
pub fn long_user_id(number: impl Display) -> String {
    format!("user {number} {}", "x".repeat(200))
}

/// This many seconds after the epoch.
#[must_use]
pub fn at_second(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(second))
}

/// This many milliseconds after the epoch.
#[must_use]
pub fn at_milli(milli: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_millis(milli))
}

/// A limit of 0 to 1024 slots.
#[must_use]
pub fn limit(slots: u32) -> SlotLimit {
    SlotLimit::new(slots).expect("within the ceiling")
}

/// The name of a device or a label.
#[must_use]
pub fn name(text: &str) -> Option<DisplayName> {
    Some(DisplayName::parse(text).expect("a good name"))
}

/// What a session with this label, and no device, calls itself.
#[must_use]
pub fn labelled(label: &str) -> Option<Box<SessionNames>> {
    SessionNames::new(None, name(label).as_ref())
}

/// The same message, as if it had no keys that the server ignores.
#[must_use]
pub fn without_ignored(message: ClientMessage) -> ClientMessage {
    match message {
        ClientMessage::AuthenticateWith(credential, options) => ClientMessage::AuthenticateWith(
            credential,
            Box::new(AuthenticateOptions { ignored: Box::default(), ..*options }),
        ),
        other => other,
    }
}

/// An IP address.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("a good address")
}

/// Connection limits, in the order of their fields. Zero is no limit.
#[must_use]
pub fn connection_limits(total: usize, unauthenticated: usize, per_client: usize, rate: u32) -> ConnectionLimits {
    ConnectionLimits {
        connections: NonZeroUsize::new(total),
        unauthenticated: NonZeroUsize::new(unauthenticated),
        per_client: NonZeroUsize::new(per_client),
        rate_per_client: NonZeroU32::new(rate),
        work_per_client: None,
        work: None,
        per_user: None,
    }
}

/// A URL on which no server listens.
#[must_use]
pub fn unreachable_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("ws://{}", listener.local_addr().expect("a bound socket has an address"))
}

/// The committed inputs of a fuzz target.
#[must_use]
pub fn fuzz_seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seeds: Vec<_> =
        entries.map(|entry| fs::read(entry.expect("a readable folder").path()).expect("a readable file")).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}

/// Runs work on a stack of 128 KiB, which deep recursion overflows.
pub fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(128 * 1024).spawn(work).expect("a thread");
    assert!(thread.join().is_ok(), "the work panicked");
}
