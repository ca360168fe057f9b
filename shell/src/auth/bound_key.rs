//! A key that verifies the signatures of its own algorithms and of no others.

use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};

use crate::auth::algorithm::Algorithm;

/// A key with its algorithms. A token names its algorithm, so without the bond it could choose how a key is used.
pub(super) struct BoundKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl BoundKey {
    /// The maximum number of keys that are tried for a token that does not say which one signed it.
    pub(super) const MAX_TRIED: usize = 8;

    /// Binds the key to those of the algorithms that fit its kind and its size.
    ///
    /// # Errors
    /// Why none fits.
    pub(super) fn new(key: DecodingKey, algorithms: impl IntoIterator<Item = Algorithm>) -> Result<Self, String> {
        let (mut fitting, mut reason) = (Vec::new(), None);
        for algorithm in algorithms {
            match check_fits(algorithm, &key) {
                Ok(()) => fitting.push(algorithm),
                Err(why) => reason = Some(why),
            }
        }
        match reason {
            Some(why) if fitting.is_empty() => Err(why),
            Some(_) | None => Ok(Self { key, algorithms: fitting }),
        }
    }

    /// A secret, for algorithms that use one.
    pub(super) fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Self {
        Self { key: DecodingKey::from_secret(secret), algorithms: algorithms.into() }
    }

    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &str) -> bool {
        let is_valid = || jsonwebtoken::crypto::verify(signature, signed, &self.key, algorithm.inner());
        self.is_for(algorithm) && is_valid().is_ok_and(|is_valid| is_valid)
    }
}

/// An error if the key does not have the size or the curve of the algorithm.
fn check_fits(algorithm: Algorithm, key: &DecodingKey) -> Result<(), String> {
    let fits = match (key.kind(), algorithm.name()) {
        // An uncompressed point of the curve: one byte and two coordinates.
        (DecodingKeyKind::SecretOrDer(point), "ES256") => point.len() == 65,
        (DecodingKeyKind::SecretOrDer(point), "ES384") => point.len() == 97,
        (DecodingKeyKind::SecretOrDer(point), "EdDSA") => point.len() == 32,
        // A sequence that begins with the modulus (RFC 8017, A.1.1), whose first byte is zero if it has 2048 bits.
        (DecodingKeyKind::SecretOrDer(der), _) => {
            matches!(**der, [0x30, 0x82, _, _, 2, 0x82, high, low, ..] if u16::from_be_bytes([high, low]) > 256)
        }
        (DecodingKeyKind::RsaModulusExponent { n, e: _ }, _) => {
            n.iter().skip_while(|&&byte| byte == 0).count() >= 256 && algorithm.family() == AlgorithmFamily::Rsa
        }
    };
    if fits {
        return Ok(());
    }
    Err(match algorithm.family() {
        AlgorithmFamily::Rsa => "its modulus is shorter than 2048 bits".into(),
        AlgorithmFamily::Ec | AlgorithmFamily::Ed | AlgorithmFamily::Hmac => "it belongs to another curve".into(),
    })
}
