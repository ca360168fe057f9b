//! JSON Web Key Sets (RFC 7517).

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use serde::Deserialize;

use crate::auth::algorithm::Algorithm;
use crate::auth::bound_key::BoundKey;
use crate::runtime::events::log_event;

/// Public keys by their ids, and public keys without an id.
pub(super) struct KeySet {
    /// Keys that share an id have different algorithms.
    pub(super) named: BTreeMap<String, Vec<BoundKey>>,
    pub(super) unnamed: Vec<BoundKey>,
}

impl KeySet {
    /// How many of the keys that are skipped are logged. A set is read again and again, and its provider chooses how many there are.
    const MAX_LOGGED: usize = 8;

    /// The keys of these algorithms. It skips other keys and unknown kinds of keys, as RFC 7517 §5 requires, and logs a
    /// warning for keys that are unusable.
    ///
    /// A key that names its algorithm is bound to that, another one to all that fit its kind.
    pub(super) fn read(algorithms: &[Algorithm], json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<serde_json::Value>,
        }

        if algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
            return Err("a key set must not contain secrets".into());
        }
        let set: Keys =
            serde_json::from_slice(json).map_err(|error| format!("it is not a JSON Web Key Set: {error}"))?;
        let (mut named, mut unnamed) = (BTreeMap::<_, Vec<BoundKey>>::new(), Vec::new());
        let mut skipped = 0..Self::MAX_LOGGED;
        for key in set.keys {
            if key.get("kty").is_some_and(|kind| kind == "oct") {
                if skipped.next().is_some() {
                    log_event!(secret_skipped { key_id: key.get("kid").and_then(|id| id.as_str()) });
                }
                continue;
            }
            let Ok(key) = serde_json::from_value::<Jwk>(key) else { continue };
            let own: Vec<_> = algorithms.iter().copied().filter(|&algorithm| is_for(algorithm, &key)).collect();
            if own.is_empty() {
                continue;
            }
            let id = key.common.key_id.clone();
            let usable = DecodingKey::from_jwk(&key).map_err(|error| error.to_string());
            match (usable.and_then(|key| BoundKey::new(key, own)), id) {
                (Ok(key), None) => unnamed.push(key),
                (Ok(key), Some(id)) => {
                    let same_id = named.entry(id.clone()).or_default();
                    if same_id.iter().any(|other| key.algorithms().iter().any(|&algorithm| other.is_for(algorithm))) {
                        return Err(format!("two of its keys have the id {id:?}"));
                    }
                    same_id.push(key);
                }
                (Err(why), id) => {
                    if skipped.next().is_some() {
                        log_event!(key_skipped { key_id: id, reason: display(why) });
                    }
                }
            }
        }
        if named.is_empty() && unnamed.is_empty() {
            let those = if algorithms.len() == 1 { "that algorithm" } else { "those algorithms" };
            return Err(format!("none of its keys can be used for {those}"));
        }
        if unnamed.len() > BoundKey::MAX_TRIED {
            return Err(format!("more than {} of its keys have no id", BoundKey::MAX_TRIED));
        }
        Ok(Self { named, unnamed })
    }
}

fn is_for(algorithm: Algorithm, key: &Jwk) -> bool {
    let common = &key.common;
    let named = common.key_algorithm.is_none_or(|named| named.to_string() == algorithm.name());
    let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let fits = match (&key.algorithm, algorithm.name()) {
        (AlgorithmParameters::RSA(_), _) => algorithm.family() == AlgorithmFamily::Rsa,
        (AlgorithmParameters::EllipticCurve(key), "ES256") => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), "ES384") => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), "EdDSA") => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    named && signs && verifies && fits
}
