//! The overrides of users in `users/`, beside the known users.
//!
//! Their keys are a zero byte and the user. No user id begins with a control character, so the known users sort after them.

use std::collections::HashMap;
use std::ops::Bound;

use heed::RwTxn;
use session_core::UserId;
use session_core::ledger::UserOverrides;

use crate::store::lmdb::environment::Environment;
use crate::store::overrides_bytes::{OverridesError, decode, encode};

/// The first byte of the keys of overrides.
const PREFIX: u8 = 0;

/// The first key after them: where the known users begin.
pub(super) const FIRST_USER: &[u8] = &[PREFIX + 1];

/// The key of this user's overrides.
pub(super) fn key(user: &UserId) -> Vec<u8> {
    [&[PREFIX], user.as_str().as_bytes()].concat()
}

/// The overrides of all users. They are few, in a table of many users.
pub(in crate::store::lmdb) fn read_all(
    environment: &Environment,
) -> Result<HashMap<UserId, UserOverrides>, Box<dyn std::error::Error + Send + Sync>> {
    let txn = environment.write()?;
    let range = (Bound::Unbounded, Bound::Excluded(FIRST_USER));
    let mut all = HashMap::new();
    for entry in environment.records.range(&txn, &range)? {
        let (key, bytes) = entry?;
        let user = key.get(1..).and_then(|id| UserId::parse(std::str::from_utf8(id).ok()?).ok());
        all.insert(user.ok_or(OverridesError::Malformed)?, decode(bytes)?);
    }
    Ok(all)
}

/// A user's overrides, empty if there are none.
pub(super) fn get(
    environment: &Environment,
    txn: &RwTxn<'_>,
    user: &UserId,
) -> heed::Result<Result<UserOverrides, OverridesError>> {
    let bytes = environment.records.get(txn, &key(user))?;
    Ok(bytes.map_or_else(|| Ok(UserOverrides::default()), decode))
}

/// Writes a user's overrides, or removes them if they are empty.
pub(super) fn put(
    environment: &Environment,
    txn: &mut RwTxn<'_>,
    user: &UserId,
    overrides: UserOverrides,
) -> heed::Result<()> {
    if overrides.is_empty() {
        environment.records.delete(txn, &key(user)).map(drop)
    } else {
        environment.records.put(txn, &key(user), &encode(overrides))
    }
}
