//! Public keys in PEM (RFC 7468): plain, or in a certificate.

use futures_rustls::pki_types::CertificateDer;
use futures_rustls::rustls::server::ParsedCertificate;
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use pem::Pem;

use crate::auth::algorithm::Algorithm;
use crate::auth::bound_key::BoundKey;

/// The keys in a file, each bound to those of the algorithms that fit its kind.
///
/// Of certificates only the first one counts. Those after it are of its issuers, who must not sign tokens.
pub(super) fn pem_keys(algorithms: &[Algorithm], text: &[u8]) -> Result<Vec<BoundKey>, String> {
    if algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
        return Err("it needs a secret, not a public key".into());
    }
    let not_a_key = || {
        let names: Vec<_> = algorithms.iter().map(|algorithm| algorithm.name()).collect();
        format!("it is not a public key in PEM of the kind that {} needs", names.join(" or "))
    };
    let blocks = pem::parse_many(with_line_breaks(text)).map_err(|_| not_a_key())?;
    let tagged = |is_wanted: fn(&str) -> bool| blocks.iter().filter(move |block| is_wanted(block.tag()));
    if tagged(|tag| tag.ends_with("PRIVATE KEY")).next().is_some() {
        return Err(
            "it is a private key, which should not be on this machine; `openssl pkey -pubout` derives the public key"
                .into(),
        );
    }
    let mut keys: Vec<_> = tagged(|tag| tag.ends_with("PUBLIC KEY")).cloned().collect();
    if let Some(certificate) = tagged(|tag| tag == "CERTIFICATE").next() {
        if !keys.is_empty() {
            return Err("it has public keys and certificates, only one of them can count".into());
        }
        keys.push(key_of_certificate(certificate)?);
    }
    if keys.is_empty() {
        return Err(not_a_key());
    }
    if keys.len() > BoundKey::MAX_TRIED {
        return Err(format!("it has more than {} keys; a key set can give them ids", BoundKey::MAX_TRIED));
    }
    keys.iter()
        .map(|key| {
            let pem = pem::encode(key);
            let decoded = algorithms.iter().find_map(|algorithm| Some((algorithm.family(), decode(*algorithm, &pem)?)));
            let (family, key) = decoded.ok_or_else(not_a_key)?;
            BoundKey::new(key, algorithms.iter().copied().filter(|algorithm| algorithm.family() == family))
        })
        .collect()
}

/// The public key of a certificate. Its names and dates do not matter: the operator has chosen the key.
fn key_of_certificate(certificate: &Pem) -> Result<Pem, String> {
    let der = CertificateDer::from(certificate.contents());
    let parsed = ParsedCertificate::try_from(&der)
        .map_err(|_| "its certificate cannot be read; `openssl x509 -pubkey -noout` may extract its public key")?;
    Ok(Pem::new("PUBLIC KEY", parsed.subject_public_key_info().to_vec()))
}

fn decode(algorithm: Algorithm, pem: &str) -> Option<DecodingKey> {
    let key = match algorithm.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
        AlgorithmFamily::Hmac => return None,
    };
    key.ok()
}

/// The text with real line breaks in place of those that are written out as `\n`, as in an environment variable. PEM has no
/// backslash.
pub(super) fn with_line_breaks(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    text.replace("\\r", "").replace("\\n", "\n").into_bytes()
}
