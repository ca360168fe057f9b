//! Numbers that are spread evenly over 64 bits.

use crate::id::UserId;

/// The number of the user's bucket. All nodes must have the same number of buckets.
///
/// # Panics
/// If there are no buckets.
#[must_use]
pub fn bucket_of(user: &UserId, buckets: u16) -> u16 {
    let bucket = user_hash(user) % u64::from(buckets);
    u16::try_from(bucket).expect("it is less than the number of buckets")
}

/// A hash of the user's id that is the same everywhere and always: FNV-1a (Fowler, Noll and Vo), spread.
pub(super) fn user_hash(user: &UserId) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    spread(user.as_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// A bijection that spreads numbers which are near to one another (SplitMix64, Steele, Lea and Flood 2014).
pub(super) const fn spread(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn bucket_of_a_user_never_changes() {
        let buckets = ["ada", "bob", "zoë", "user-00000001"].map(|id| bucket_of(&user(id), 64));
        assert_eq!(buckets, [29, 44, 58, 41]);
        assert_eq!(bucket_of(&user("ada"), 1), 0);
    }

    #[test]
    fn users_are_spread_evenly() {
        let mut counts = vec![0; 64];
        for number in 0..64_000 {
            counts[usize::from(bucket_of(&user(&format!("user-{number:08}")), 64))] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
