//! Decides whether a session may go on with another credential.

use super::limit::SlotLimit;
use super::outcome::RenewalDenied;
use super::policy::AdmissionPolicy;
use super::record::UserRecord;
use super::slots::Slots;
use crate::id::{DisplayName, SessionId};

/// What the other credential of a session's user says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal<'a> {
    /// The session.
    pub session: SessionId,
    /// The limit that the credential claims.
    pub token_limit: Option<SlotLimit>,
    /// The device that the credential names.
    pub device: Option<&'a DisplayName>,
}

/// Decides whether a session may go on with another credential of its user, beyond the end of the one that it has. Returns the
/// number of slots that the user holds. Call [`remove_lapsed`](super::remove_lapsed) first, or lapsed sessions count as well.
///
/// A credential with which the session could not have been admitted to its slot does not extend it. Otherwise one borrowed
/// credential would put a device into the slot of another for good.
///
/// A permitted renewal puts the new claim into the record, for those who look at it. It counts for no other session.
///
/// # Errors
/// [`RenewalDenied`] if the limit in force for the credential is 0, or if it names another device than the slot has.
pub fn renew(record: &mut UserRecord, renewal: Renewal<'_>, policy: &AdmissionPolicy) -> Result<u32, RenewalDenied> {
    if policy.limit_for(renewal.token_limit).0.slots() == 0 {
        return Err(RenewalDenied::Banned);
    }
    // A session that lost its slot is about to hear of that.
    if let Some(own) = record.sessions_mut().iter_mut().find(|entry| entry.session == renewal.session) {
        if renewal.device.is_some() && own.device() != renewal.device {
            return Err(RenewalDenied::AnotherDevice);
        }
        own.claim = renewal.token_limit;
    }
    Ok(Slots::count_in(record, policy.count_by))
}
