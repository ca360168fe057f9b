//! Several keys and algorithms at once, and keys in the forms in which they are handed out.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::fs;
use std::path::PathBuf;

use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use rcgen::{CertificateParams, Issuer, KeyPair};
use serde_json::{Value, json};
use session_core::protocol::TokenError;
use shell::auth::{Algorithm, KeySource, Keys, Secret, TokenRequest, TokenValidation, Verifier, explain, mint};

use super::fixtures::*;

/// A key pair, and its algorithm.
struct Signer {
    algorithm: Algorithm,
    public: KeySource,
    private: PathBuf,
}

impl Signer {
    fn new(directory: &KeyDirectory, name: &str) -> Self {
        let (public, private) = directory.key_pair(name);
        Self { algorithm: name.parse().unwrap(), public, private: private.unwrap() }
    }

    fn public_pem(&self) -> String {
        fs::read_to_string(self.public.file().unwrap()).unwrap()
    }

    fn private_pem(&self) -> String {
        fs::read_to_string(&self.private).unwrap()
    }

    /// A token that it signs with any algorithm of its kind.
    fn token_with(&self, algorithm: &str, key_id: Option<&str>) -> String {
        let request =
            TokenRequest { key_id: key_id.map(Into::into), private_key: Some(self.private.clone()), ..token_request() };
        mint(&[algorithm.parse().unwrap()], &self.public, &TokenValidation::default(), &request, at(NOW)).unwrap()
    }

    fn token(&self, key_id: Option<&str>) -> String {
        self.token_with(self.algorithm.name(), key_id)
    }

    /// Its public key for a key set. Without an `alg` as Entra ID publishes it.
    fn jwk(&self, key_id: &str, algorithm: Option<&str>) -> Value {
        let pem = self.private_pem();
        let key = match self.algorithm.name() {
            "RS256" => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let jwk = Jwk::from_encoding_key(&key.unwrap(), self.algorithm.name().parse().unwrap()).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = key_id.into();
        match algorithm {
            Some(algorithm) => jwk["alg"] = algorithm.into(),
            None => drop(jwk.as_object_mut().unwrap().remove("alg")),
        }
        jwk
    }
}

fn algorithms(names: &[&str]) -> Vec<Algorithm> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn verifier_of(names: &[&str], source: &KeySource) -> Verifier {
    Verifier { keys: Keys::load(&algorithms(names), source).unwrap(), rules: TokenValidation::default() }
}

fn error_of(names: &[&str], source: &KeySource) -> String {
    Keys::load(&algorithms(names), source).unwrap_err().to_string()
}

#[test]
fn both_keys_of_a_rotation_are_accepted() {
    let directory = KeyDirectory::new();
    let (old, new) = (Signer::new(&directory, "RS256"), Signer::new(&directory, "ES256"));
    let set = |keys: &[Value]| {
        KeySource::KeySetFile(directory.write("keys.json", json!({ "keys": keys }).to_string().as_bytes()))
    };
    for with_algorithm in [true, false] {
        let alg = |name| with_algorithm.then_some(name);
        let (old_jwk, new_jwk) = (old.jwk("old", alg("RS256")), new.jwk("new", alg("ES256")));
        // Before, during and after. The list of algorithms need not change meanwhile.
        for (keys, is_old, is_new) in [
            (&[old_jwk.clone()][..], true, false),
            (&[old_jwk, new_jwk.clone()], true, true),
            (&[new_jwk], false, true),
        ] {
            let verifier = verifier_of(&["RS256", "ES256"], &set(keys));
            assert_eq!(verifier.verdict(&old.token(Some("old")), at(NOW)).is_ok(), is_old);
            assert_eq!(verifier.verdict(&new.token(Some("new")), at(NOW)).is_ok(), is_new);
        }
    }
    let both = verifier_of(&["RS256", "ES256"], &set(&[old.jwk("old", None), new.jwk("new", None)]));
    assert_eq!(format!("{:?}", both.keys), "Keys(2 of RS256, ES256)");
    for (token, error) in [
        (new.token(Some("old")), TokenError::Algorithm),
        (old.token(Some("new")), TokenError::Algorithm),
        (old.token_with("RS512", Some("old")), TokenError::Algorithm),
        (Signer::new(&directory, "ES256").token(Some("new")), TokenError::Signature),
        (Signer::new(&directory, "ES256").token(Some("newer")), TokenError::UnknownKey),
    ] {
        assert_eq!(both.verdict(&token, at(NOW)).map(drop), refused(error));
    }
    assert!(both.verdict(&old.token(None), at(NOW)).is_ok(), "the only key of its algorithm needs no name");
}

#[test]
fn key_verifies_only_its_own_algorithm() {
    let directory = KeyDirectory::new();
    let signer = Signer::new(&directory, "RS256");
    let set = |keys: &[Value]| {
        KeySource::KeySetFile(directory.write("keys.json", json!({ "keys": keys }).to_string().as_bytes()))
    };
    let names = ["RS256", "PS256", "RS512"];
    let verdict = |keys: &[Value], algorithm: &str| {
        verifier_of(&names, &set(keys)).verdict(&signer.token_with(algorithm, Some("a")), at(NOW)).map(drop)
    };
    let bound = [signer.jwk("a", Some("RS256"))];
    assert_eq!(verdict(&bound, "RS256"), Ok(()));
    assert_eq!(verdict(&bound, "PS256"), refused(TokenError::Algorithm));
    assert_eq!(verdict(&bound, "RS512"), refused(TokenError::Algorithm));
    // A key that names no algorithm fits all of its kind.
    for algorithm in names {
        assert_eq!(verdict(&[signer.jwk("a", None)], algorithm), Ok(()), "{algorithm}");
    }
    // Some issuers list a key once for each algorithm, under one id.
    let twice = [signer.jwk("a", Some("RS256")), signer.jwk("a", Some("PS256"))];
    assert_eq!((verdict(&twice, "RS256"), verdict(&twice, "PS256")), (Ok(()), Ok(())));
    assert_eq!(verdict(&twice, "RS512"), refused(TokenError::Algorithm));
    // Nor does it verify another algorithm where several keys are tried, under one id or without an id.
    let other = Signer::new(&directory, "RS256");
    let nameless = |mut jwk: Value| {
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let shared = [signer.jwk("a", Some("RS256")), other.jwk("a", Some("PS256"))];
    let unnamed = shared.clone().map(nameless);
    for (keys, id) in [(shared, Some("a")), (unnamed, None)] {
        let verifier = verifier_of(&names, &set(&keys));
        let verdict = |algorithm| verifier.verdict(&signer.token_with(algorithm, id), at(NOW)).map(drop);
        assert_eq!((verdict("RS256"), verdict("PS256")), (Ok(()), refused(TokenError::Signature)), "{id:?}");
    }
    let ambiguous = set(&[signer.jwk("a", Some("RS256")), signer.jwk("a", None)]);
    assert!(error_of(&names, &ambiguous).ends_with("two of its keys have the id \"a\""));
    // No public key is ever a secret, whatever the list says.
    for names in [&["RS256", "HS256"][..], &["HS256", "RS256"]] {
        for (source, message) in [
            (&signer.public, "it needs a secret, not a public key"),
            (&set(&bound), "a key set must not contain secrets"),
            (&KeySource::Secret(Secret::new(SECRET)), "it needs a public key, not a secret"),
        ] {
            assert!(error_of(names, source).ends_with(message), "{names:?}");
        }
    }
}

#[test]
fn several_hashes_share_one_secret() {
    let source = KeySource::Secret(Secret::new(SECRET));
    let verifier = verifier_of(&["HS256", "HS512"], &source);
    let token = |name: &str| {
        mint(&[name.parse().unwrap()], &source, &TokenValidation::default(), &token_request(), at(NOW)).unwrap()
    };
    assert!(verifier.verdict(&token("HS256"), at(NOW)).is_ok() && verifier.verdict(&token("HS512"), at(NOW)).is_ok());
    assert_eq!(verifier.verdict(&token("HS384"), at(NOW)).map(drop), refused(TokenError::Algorithm));
    let short = KeySource::Secret(Secret::new(&[b'x'; 63]));
    assert!(error_of(&["HS256", "HS512"], &short).contains("at least 64 are needed"));
}

#[test]
fn file_may_have_keys_of_several_algorithms() {
    let directory = KeyDirectory::new();
    let signers = ["RS256", "ES256", "ES384", "EdDSA"].map(|name| Signer::new(&directory, name));
    let all: String = signers.iter().map(Signer::public_pem).collect();
    let file = |text: &str| KeySource::PublicKeyFile(directory.write("all.pem", text.as_bytes()));
    let verifier = verifier_of(&["RS256", "ES256", "ES384", "EdDSA"], &file(&all));
    for signer in &signers {
        assert!(verifier.verdict(&signer.token(Some("any")), at(NOW)).is_ok(), "{}", signer.algorithm);
    }
    let other = Signer::new(&directory, "ES384");
    assert_eq!(verifier.verdict(&other.token(None), at(NOW)).map(drop), refused(TokenError::Signature));
    let first = verifier_of(&["RS256", "ES256"], &signers[0].public);
    assert_eq!(first.verdict(&signers[1].token(None), at(NOW)).map(drop), refused(TokenError::UnknownKey));
    assert!(error_of(&["RS256"], &file(&all)).ends_with("of the kind that RS256 needs"));
    assert!(error_of(&["RS256", "ES256"], &file(&all)).ends_with("it belongs to another curve"));
    assert!(error_of(&["ES256"], &file(&signers[1].public_pem().repeat(9))).contains("more than 8 keys"));
    // `server token` signs with the algorithm that the private key fits.
    for signer in &signers {
        let request = TokenRequest { private_key: Some(signer.private.clone()), ..token_request() };
        let names = algorithms(&["RS256", "ES256", "ES384", "EdDSA"]);
        let token = mint(&names, &signer.public, &TokenValidation::default(), &request, at(NOW)).unwrap();
        assert!(verifier.verdict(&token, at(NOW)).is_ok(), "{}", signer.algorithm);
    }
}

#[test]
fn certificate_counts_as_its_key() {
    let directory = KeyDirectory::new();
    let issuing = Signer::new(&directory, "ES256");
    let issuing_key = KeyPair::from_pem(&issuing.private_pem()).unwrap();
    let issuer = Issuer::new(CertificateParams::new(["issuer.example".into()]).unwrap(), issuing_key);
    for name in ["RS256", "ES256", "ES384", "EdDSA"] {
        let signer = Signer::new(&directory, name);
        let key = KeyPair::from_pem(&signer.private_pem()).unwrap();
        let own = CertificateParams::new(["tokens.example".into()]).unwrap();
        let certificate = own.signed_by(&key, &issuer).unwrap().pem();
        let issuers = CertificateParams::new(["issuer.example".into()]).unwrap();
        let issuers = issuers.self_signed(&KeyPair::from_pem(&issuing.private_pem()).unwrap()).unwrap().pem();
        let chain = format!("Subject: tokens.example\n{certificate}\nIssuer:\n{issuers}");
        for text in [&certificate, &chain] {
            let source = KeySource::PublicKeyFile(directory.write("cert.pem", text.as_bytes()));
            let verifier = verifier_of(&[name, "PS512"], &source);
            assert!(verifier.verdict(&signer.token(None), at(NOW)).is_ok(), "{name}");
            // The issuer of the certificate is not the issuer of the tokens.
            assert_eq!(verifier.keys.count(), 1);
            assert!(name != "ES256" || verifier.verdict(&issuing.token(None), at(NOW)).is_err());
        }
        let mixed = directory.write("mixed.pem", format!("{certificate}{}", signer.public_pem()).as_bytes());
        assert!(error_of(&[name], &KeySource::PublicKeyFile(mixed)).contains("only one of them can count"));
    }
}

#[test]
fn line_breaks_of_a_key_may_be_written_out() {
    let directory = KeyDirectory::new();
    let signer = Signer::new(&directory, "RS256");
    let written_out = |pem: &str| pem.replace('\n', "\\n");
    for text in [
        written_out(&signer.public_pem()),
        format!("\"{}\"\n", written_out(&signer.public_pem())),
        signer.public_pem().replace('\n', "\\r\\n"),
        signer.public_pem().replace('\n', "\r\n"),
    ] {
        let source = KeySource::PublicKeyFile(directory.write("env.pem", text.as_bytes()));
        assert!(verifier_of(&["RS256"], &source).verdict(&signer.token(None), at(NOW)).is_ok(), "{text}");
    }
    let private = directory.write("env.key", written_out(&signer.private_pem()).as_bytes());
    let found = error_of(&["RS256"], &KeySource::PublicKeyFile(private.clone()));
    assert!(found.contains("it is a private key"), "{found}");
    let written_out = Signer { private, ..signer };
    assert!(verifier_of(&["RS256"], &written_out.public).verdict(&written_out.token(None), at(NOW)).is_ok());
}

#[test]
fn explanation_shows_each_step() {
    let directory = KeyDirectory::new();
    let (old, new) = (Signer::new(&directory, "RS256"), Signer::new(&directory, "ES256"));
    let keys = json!({"keys": [old.jwk("old", Some("RS256")), new.jwk("new", None)]});
    let source = KeySource::KeySetFile(directory.write("keys.json", keys.to_string().as_bytes()));
    let verifier = verifier_of(&["RS256", "ES256"], &source);
    let text = explain(&verifier, &format!("Bearer {}\n", new.token(Some("new"))), at(NOW)).unwrap();
    let steps: Vec<_> = text.lines().filter(|line| line.contains(" ok: ")).collect();
    assert_eq!(
        steps,
        [
            "algorithm ok: ES256, jwt_algorithm is RS256, ES256",
            "signature ok: by the key \"new\", one of: \"new\" (ES256), \"old\" (RS256)",
            "times ok: for another 1h, jwt_leeway is 0s",
            "audience ok: jwt_audience is not set",
            "issuer ok: jwt_issuer is not set",
            "user ok: \"ada\", jwt_user_claim is sub, user_id_form is exact",
            "limit ok: none, the server's applies, jwt_limit_claim is max_sessions",
        ]
    );
    let text = explain(&verifier, &new.token(Some("newer")), at(NOW)).unwrap_err();
    assert!(text.contains("algorithm ok: ") && !text.contains("signature ok: "), "{text}");
    assert!(text.ends_with("(the keys are \"new\" (ES256), \"old\" (RS256))"), "{text}");
}
