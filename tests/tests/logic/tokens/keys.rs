//! Signatures, and the keys that verify them.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::EncodingKey;
use rcgen::KeyPair;
use serde_json::{Value, json};
use session_core::protocol::TokenError;
use shell::auth::{
    Algorithm, JwtAuthenticator, KeyError, KeySource, Keys, Secret, TokenRequest, TokenValidation, Verifier, mint,
};
use shell::runtime::clock::Clock;

use super::fixtures::*;

/// 2040 bits long.
const SHORT_RSA_KEY: &[u8] = b"-----BEGIN PUBLIC KEY-----
MIIBITANBgkqhkiG9w0BAQEFAAOCAQ4AMIIBCQKCAQAA6/xBx2Zo22Fll7b7Tn1D
46wF8OjbqofwgUakNZZjNlrteuZuM61Ljm+XUB3LI2WFpcqaBZaREkt6x+lADSK/
3q6J/O2uepg2dAyYOOcdKENOJtQlgfDSY8Nq3MfBv+skq0JKlxAelI747b4VjSqh
Z1NYJEsRifITSDPbfpWPX1XJpWz7E+B7ymuwenGvLULjXE8xst7q3p1dCr8vNcW5
mUWlBNGeuCxnhp7ioXIb8HiB8waJ+gNUqJ7VfbVLfvDPr9/krU+xG6+Kq8j2Ylk8
XlvczgqOE6vWF5/oGx/wK0uk0P5Ws/gecTxle/9FAxdnRmORK65JE62D8A6rAfYd
AgMBAAE=
-----END PUBLIC KEY-----
";

#[test]
fn unauthentic_token_is_refused_despite_its_claims() {
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let claims = json!({"sub": "ada", "exp": NOW + 60});
    let good = token(&header, &claims);
    assert!(verifier("HS256").verdict(&good, at(NOW)).is_ok());
    let with_header = |header: Value| token(&header, &claims);
    let unsigned = format!("{}.{}.", encoded(&json!({"alg": "none"})), encoded(&claims));
    let other_claims = good.replacen(&encoded(&claims), &encoded(&json!({"sub": "eve", "exp": NOW + 60})), 1);
    let flipped = format!("{}{}", &good[..good.len() - 2], if good.ends_with("AA") { "BB" } else { "AA" });
    for (token, error) in [
        (String::new(), TokenError::Malformed),
        ("ada".into(), TokenError::Malformed),
        ("..".into(), TokenError::Malformed),
        ("a.b".into(), TokenError::Malformed),
        (format!("{good}."), TokenError::Malformed),
        (format!("{good}.x.y"), TokenError::Malformed),
        (format!(" {good}"), TokenError::Malformed),
        (format!("Bearer {good}"), TokenError::Malformed),
        (good.replacen('.', "=.", 1), TokenError::Malformed),
        (format!("{}.e30.x", BASE64.encode("[]")), TokenError::Malformed),
        (format!("{}.e30.x", BASE64.encode("{\"alg\":")), TokenError::Malformed),
        (format!("{}.e30.x", BASE64.encode("\"HS256\"")), TokenError::Malformed),
        (with_header(json!({"typ": "JWT"})), TokenError::Malformed),
        (with_header(json!({"alg": ["HS256"]})), TokenError::Malformed),
        (with_header(json!({"alg": "HS256", "kid": 7})), TokenError::Malformed),
        (unsigned, TokenError::Algorithm),
        (with_header(json!({"alg": "none"})), TokenError::Algorithm),
        (with_header(json!({"alg": "hs256"})), TokenError::Algorithm),
        (with_header(json!({"alg": "HS512"})), TokenError::Algorithm),
        (with_header(json!({"alg": "RS256"})), TokenError::Algorithm),
        (with_header(json!({"alg": ""})), TokenError::Algorithm),
        (with_header(json!({"alg": "HS256", "crit": ["b64"], "b64": false})), TokenError::Critical),
        (with_header(json!({"alg": "HS256", "crit": []})), TokenError::Critical),
        (other_claims, TokenError::Signature),
        (flipped, TokenError::Signature),
        (good[..good.len() - 1].into(), TokenError::Signature),
        (good[..good.rfind('.').unwrap() + 1].into(), TokenError::Signature),
        (signed_with(b"another secret that is quite as long", &claims), TokenError::Signature),
        // The claims are read only after the signature is verified.
        (signed_with(b"another secret that is quite as long", &json!({"exp": "x"})), TokenError::Signature),
        (text_token(r#"{"alg":"HS256","alg":"HS256"}"#, &claims.to_string()), TokenError::DuplicateClaim),
        (text_token(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","sub":"eve","exp":1700000060}"#), TokenError::DuplicateClaim),
        (text_token(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","exp":1,"exp":1700000060}"#), TokenError::DuplicateClaim),
        (
            text_token(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","s\u0075b":"eve","exp":1700000060}"#),
            TokenError::DuplicateClaim,
        ),
        // A nested claim may name the user, or the limit.
        (
            text_token(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","exp":1700000060,"x":[{"y":{"z":1,"z":2}}]}"#),
            TokenError::DuplicateClaim,
        ),
        (text_token(r#"{"alg":"HS256"}"#, r#"["sub"]"#), TokenError::Malformed),
        (text_token(r#"{"alg":"HS256"}"#, &"[".repeat(100_000)), TokenError::Malformed),
        (text_token(r#"{"alg":"HS256"}"#, &format!(r#"{{"x":{}"#, "[".repeat(100_000))), TokenError::Malformed),
        ("a".repeat(1 << 20), TokenError::Malformed),
        (format!("{}.{}.{}", "a".repeat(1 << 18), "a".repeat(1 << 18), "a".repeat(1 << 18)), TokenError::Malformed),
        (format!("{}{}", good, "A".repeat(1 << 20)), TokenError::Signature),
    ] {
        let verdict = verifier("HS256").verdict(&token, at(NOW));
        assert_eq!(verdict, refused(error), "{token:.300}");
    }
    for cut in 0..good.len() {
        assert!(verifier("HS256").verdict(&good[..cut], at(NOW)).is_err(), "cut off at {cut}");
    }
}

#[test]
fn each_algorithm_accepts_only_its_own_key() {
    let directory = KeyDirectory::new();
    let (mut verifiers, mut authenticator) = (Vec::new(), Vec::new());
    for name in Algorithm::NAMES {
        let algorithm: Algorithm = name.parse().unwrap();
        let (source, private_key) = match name {
            "HS256" | "HS384" | "HS512" => (KeySource::Secret(Secret::new(SECRET)), None),
            _ => directory.key_pair(name),
        };
        let request = TokenRequest { private_key, ..token_request() };
        authenticator.push(mint(&[algorithm], &source, &TokenValidation::default(), &request, at(NOW)).unwrap());
        verifiers
            .push(Verifier { keys: Keys::load(&[algorithm], &source).unwrap(), rules: TokenValidation::default() });
    }
    for (at_key, verifier) in verifiers.iter().enumerate() {
        for (at_token, token) in authenticator.iter().enumerate() {
            let verdict = verifier.verdict(token, at(NOW));
            let expected = if at_key == at_token { Ok(()) } else { refused(TokenError::Algorithm) };
            assert_eq!(verdict.map(drop), expected, "{} by {:?}", Algorithm::NAMES[at_token], verifier.keys);
        }
    }
    // Another key of the same algorithm.
    for name in ["RS256", "PS256", "ES256", "EdDSA"] {
        let (other, _) = directory.key_pair(name);
        let other =
            Verifier { keys: Keys::load(&[name.parse().unwrap()], &other).unwrap(), rules: TokenValidation::default() };
        let token = &authenticator[Algorithm::NAMES.iter().position(|known| *known == name).unwrap()];
        assert_eq!(other.verdict(token, at(NOW)).map(drop), refused(TokenError::Signature), "{name}");
    }
}

/// Algorithm confusion: a token must not choose HS256 with the public key, which is no secret.
#[test]
fn public_key_does_not_work_as_secret() {
    let directory = KeyDirectory::new();
    let (source, _) = directory.key_pair("RS256");
    let pem = fs::read(source.file().unwrap()).unwrap();
    let claims = json!({"sub": "ada", "exp": NOW + 60});
    let forged = signed_with(&pem, &claims);
    let rsa =
        Verifier { keys: Keys::load(&["RS256".parse().unwrap()], &source).unwrap(), rules: TokenValidation::default() };
    assert_eq!(rsa.verdict(&forged, at(NOW)), refused(TokenError::Algorithm));
    let renamed = forged.replacen(&encoded(&json!({"alg": "HS256"})), &encoded(&json!({"alg": "RS256"})), 1);
    assert_eq!(rsa.verdict(&renamed, at(NOW)), refused(TokenError::Signature));
    // An operator cannot configure it as a secret by mistake either.
    let mistaken = Keys::load(&["HS256".parse().unwrap()], &KeySource::SecretFile(source.file().unwrap().into()));
    assert!(mistaken.unwrap_err().to_string().contains("it is a key in PEM, a secret is needed"));
}

#[test]
fn keys_of_a_set_are_found_by_id() {
    let directory = KeyDirectory::new();
    let pairs: Vec<_> =
        ["RS256", "RS256", "ES256", "EdDSA", "ES384"].map(|name| (name, directory.key_pair(name))).into();
    let jwk = |at: usize, id: Option<&str>| {
        let (name, (_, private)) = &pairs[at];
        let pem = fs::read_to_string(private.as_ref().unwrap()).unwrap();
        let key = match *name {
            "RS256" => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let mut jwk = if *name == "EdDSA" {
            let point = KeyPair::from_pem(&pem).unwrap().public_key_raw().to_vec();
            json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(point)})
        } else {
            let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key.unwrap(), name.parse().unwrap()).unwrap();
            serde_json::to_value(jwk).unwrap()
        };
        if let Some(id) = id {
            jwk["kid"] = id.into();
        }
        jwk
    };
    let set = |keys: Vec<Value>| directory.write("keys.json", json!({ "keys": keys }).to_string().as_bytes());
    let token = |which: usize, key_id: Option<&str>| {
        let (name, (source, private_key)) = &pairs[which];
        let request =
            TokenRequest { key_id: key_id.map(Into::into), private_key: private_key.clone(), ..token_request() };
        mint(&[name.parse().unwrap()], source, &TokenValidation::default(), &request, at(NOW)).unwrap()
    };
    let verifier = |name: &str, path: &PathBuf| Verifier {
        keys: Keys::load(&[name.parse().unwrap()], &KeySource::KeySetFile(path.clone())).unwrap(),
        rules: TokenValidation::default(),
    };

    let mut encrypts = jwk(0, Some("encrypts"));
    encrypts["use"] = "enc".into();
    let mut signs = jwk(0, Some("signs"));
    signs["key_ops"] = json!(["sign"]);
    let unknown = json!({"kty": "quantum", "kid": "q"});
    let all = set(vec![
        jwk(0, Some("old")),
        jwk(1, Some("new")),
        jwk(2, Some("curve")),
        jwk(3, Some("ed")),
        jwk(4, Some("other curve")),
        encrypts,
        signs,
        unknown,
    ]);
    let rsa = verifier("RS256", &all);
    assert_eq!(rsa.keys.count(), 2, "only those of the algorithm count");
    assert!(
        rsa.verdict(&token(0, Some("old")), at(NOW)).is_ok() && rsa.verdict(&token(1, Some("new")), at(NOW)).is_ok()
    );
    for (which, key_id, error) in [
        (0, Some("new"), TokenError::Signature),
        (0, Some("curve"), TokenError::UnknownKey),
        (0, Some("encrypts"), TokenError::UnknownKey),
        (0, Some("signs"), TokenError::UnknownKey),
        (0, Some(""), TokenError::UnknownKey),
        (0, Some("OLD"), TokenError::UnknownKey),
        (0, None, TokenError::NoKeyId),
        (2, Some("curve"), TokenError::Algorithm),
    ] {
        assert_eq!(rsa.verdict(&token(which, key_id), at(NOW)).map(drop), refused(error), "{which} {key_id:?}");
    }
    assert!(verifier("ES256", &all).verdict(&token(2, Some("curve")), at(NOW)).is_ok());
    assert!(verifier("EdDSA", &all).verdict(&token(3, None), at(NOW)).is_ok(), "the only one needs no name");
    assert!(verifier("RS256", &set(vec![jwk(0, None)])).verdict(&token(0, None), at(NOW)).is_ok());
    let mut unnamed = jwk(4, None);
    unnamed.as_object_mut().unwrap().remove("alg");
    let unnamed = || set(vec![unnamed.clone()]);
    assert!(verifier("ES384", &unnamed()).verdict(&token(4, None), at(NOW)).is_ok(), "the curve says which algorithm");

    let mut nameless = vec![jwk(0, None), jwk(1, None), jwk(2, None)];
    let by_trial = verifier("RS256", &set(nameless.clone()));
    assert!(by_trial.verdict(&token(0, None), at(NOW)).is_ok() && by_trial.verdict(&token(1, None), at(NOW)).is_ok());
    assert_eq!(by_trial.verdict(&token(0, Some("old")), at(NOW)).map(drop), refused(TokenError::UnknownKey));

    let why = |name: &str, path: PathBuf| {
        Keys::load(&[name.parse().unwrap()], &KeySource::KeySetFile(path)).unwrap_err().to_string()
    };
    let none = "none of its keys can be used for that algorithm";
    assert!(why("PS512", set(vec![jwk(0, None), jwk(2, None)])).ends_with(none), "they are for others by name or kind");
    for name in ["ES256", "EdDSA", "PS512"] {
        assert!(why(name, unnamed()).ends_with(none), "{name}");
    }
    assert!(
        why("RS256", set(vec![jwk(0, Some("x")), jwk(1, Some("x"))])).ends_with("two of its keys have the id \"x\"")
    );
    nameless.extend((0..7).map(|_| jwk(0, None)));
    assert!(why("RS256", set(nameless)).ends_with("more than 8 of its keys have no id"));
    let mut weak = jwk(0, Some("weak"));
    weak["n"] = BASE64.encode([0x80; 255]).into();
    assert!(why("RS256", set(vec![weak])).ends_with("none of its keys can be used for that algorithm"));
    let mut torn = jwk(2, Some("torn"));
    torn["x"] = "AAAA".into();
    assert!(why("ES256", set(vec![torn])).ends_with("none of its keys can be used for that algorithm"));
    assert!(why("RS256", directory.write("keys.json", b"{}")).contains("it is not a JSON Web Key Set: "));
    assert!(why("HS256", set(vec![])).ends_with("a key set must not contain secrets"));
}

#[test]
fn unusable_keys_are_refused_with_a_reason() {
    let directory = KeyDirectory::new();
    let (rsa, rsa_private) = directory.key_pair("RS256");
    let (curve, _) = directory.key_pair("ES384");
    let public = |path: PathBuf| KeySource::PublicKeyFile(path);
    let secret = |text: &[u8]| KeySource::SecretFile(directory.write(&format!("secret of {}", text.len()), text));
    let certificate = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for (name, source, message) in [
        ("HS256", secret(b"too short\n"), "it has 9 bytes, at least 32 are needed (RFC 7518, 3.2)"),
        ("HS384", secret(&[b'x'; 47]), "at least 48 are needed"),
        ("HS512", secret(&[b'x'; 63]), "at least 64 are needed"),
        ("HS256", secret(&[&b"Bag Attributes: <No Attributes>\n"[..], certificate].concat()), "it is a key in PEM"),
        ("HS256", secret(br#"{"keys":[{"kty":"RSA","kid":"a","use":"sig"}]}"#), "it is a JSON Web Key Set"),
        ("RS256", secret(SECRET), "it needs a public key, not a secret"),
        ("HS256", rsa.clone(), "it needs a secret, not a public key"),
        ("RS256", public(rsa_private.unwrap()), "it is a private key, which should not be on this machine"),
        (
            "RS256",
            public(directory.write("cert", certificate)),
            "its certificate cannot be read; `openssl x509 -pubkey -noout` may extract",
        ),
        ("ES256", rsa, "it is not a public key in PEM of the kind that ES256 needs"),
        ("RS256", curve.clone(), "it is not a public key in PEM of the kind that RS256 needs"),
        ("ES256", curve, "it belongs to another curve"),
        ("RS256", public(directory.write("empty", b"")), "it is not a public key in PEM"),
        ("RS256", public(directory.path("missing")), "cannot read"),
        ("RS256", public(directory.write("short", SHORT_RSA_KEY)), "its modulus is shorter than 2048 bits"),
        ("RS256", public(directory.write("large", &vec![b'x'; 1 << 20])), "it is not a public key in PEM"),
        ("RS256", public(directory.write("huge", &vec![b'x'; (1 << 20) + 1])), "it is larger than 1 MiB"),
    ] {
        let error = Keys::load(&[name.parse().unwrap()], &source).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(matches!(error, KeyError::Unusable { .. } | KeyError::Unreadable { .. }));
    }
    for (name, least) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        assert!(Keys::load(&[name.parse().unwrap()], &secret(&vec![b'x'; least])).is_ok(), "{name}");
    }
    assert_eq!(Secret::new(b"x\r\n"), Secret::new(b"x"));
    assert_eq!(Secret::new(b" x\n\n"), Secret::new(b" x\n\n"), "one line break, no more, and no space");
    assert!("HS255".parse::<Algorithm>().unwrap_err().starts_with("it must be one of HS256, "));
}

#[test]
fn secrets_and_tokens_are_not_printed() {
    let verifier = verifier("HS256");
    assert_eq!(format!("{:?}", verifier.keys), "Keys(1 of HS256)");
    let printed = format!("{:?}", JwtAuthenticator::new(verifier, Clock::manual(Arc::default())));
    assert!(
        printed.starts_with("JwtAuthenticator { verifier: Verifier { keys: Keys(1 of HS256), rules: "),
        "{printed}"
    );
    let source = KeySource::Secret(Secret::new(b"hunter2hunter2hunter2hunter2hunter2"));
    assert_eq!(format!("{source:?}"), "Secret(Secret(35 bytes))");
}
