//! Admission policies that both simulations use.

use std::num::NonZeroU16;
use std::time::Duration;

use session_core::ledger::{AdmissionPolicy, CountBy, SlotLimit, WhenFull};

/// The grace period, if slots linger.
pub const LINGER: Duration = Duration::from_secs(20);

/// How long a slot that was just lost is kept, if that is shorter than [`LINGER`].
pub const LINGER_GRACE: Duration = Duration::from_secs(5);

/// A policy with this limit. Each bit switches one setting.
#[must_use]
pub fn policy(limit: SlotLimit, bits: u8) -> AdmissionPolicy {
    let has = |bit: u8| bits & bit != 0;
    AdmissionPolicy {
        when_full: if has(1) { WhenFull::EvictOldest } else { WhenFull::Deny },
        client_choice: has(2),
        lingering_first: has(4),
        count_by: if has(8) { CountBy::Devices } else { CountBy::Sessions },
        sessions_per_device: NonZeroU16::new(2).expect("it is not zero"),
        linger: if has(16) { LINGER } else { Duration::ZERO },
        linger_grace: match (has(32), has(64)) {
            (false, false) => Duration::ZERO,
            (true, false) => LINGER_GRACE,
            (false, true) => LINGER,
            (true, true) => LINGER + LINGER_GRACE,
        },
        max_waiting: if has(128) { 2 } else { 16 },
        ..AdmissionPolicy::new(limit)
    }
}
