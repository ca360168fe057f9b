//! Tokens: who is let in, and why the others are not.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::EncodingKey;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use serde_json::{Value, json};
use session_core::ledger::SlotLimit;
use session_core::protocol::{Credential, CredentialError, TokenError};
use session_core::session::Identity;
use session_core::{Timestamp, UnixSeconds, UserId, UserIdError};
use shell::auth::{
    Algorithm, Authenticator as _, JwtAuthenticator, KeyError, KeySource, Keys, MintError, Secret, TokenRequest,
    TokenValidation, Verifier, explain, mint,
};
use shell::runtime::clock::{Clock, ManualClock};
use tempfile::TempDir;

const SECRET: &[u8] = b"a secret that is long enough even for HS512, which wants sixty-four bytes";
const NOW: u64 = 1_700_000_000;

/// Of 2040 bits.
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
fn a_good_token_says_who_and_until_when_and_perhaps_how_many() {
    let identity = |limit: Option<u32>, expires| Identity {
        user: UserId::parse("ada").unwrap(),
        limit: limit.map(|slots| SlotLimit::new(slots).unwrap()),
        expires: Some(UnixSeconds::from_unix_seconds(expires)),
        device: None,
        resume_token: None,
    };
    for (claims, expected) in [
        (json!({"sub": "ada", "exp": NOW + 60}), identity(None, NOW + 60)),
        (json!({"sub": "ada", "exp": NOW + 1, "max_sessions": 7}), identity(Some(7), NOW + 1)),
        (json!({"sub": "ada", "exp": NOW + 1, "max_sessions": 0}), identity(Some(0), NOW + 1)),
        (json!({"sub": "ada", "exp": NOW + 1, "max_sessions": 1024}), identity(Some(1024), NOW + 1)),
        (json!({"sub": "ada", "exp": NOW + 1, "max_sessions": "unlimited"}), identity(Some(1024), NOW + 1)),
        // A NumericDate may have a fraction; what is cut off does not count for the bearer.
        (json!({"sub": "ada", "exp": 1_700_000_060.9, "nbf": 1_700_000_000.9}), identity(None, NOW + 60)),
        (json!({"sub": "ada", "exp": u64::MAX, "nbf": NOW, "aud": "anybody", "iss": ["x"]}), identity(None, u64::MAX)),
        (json!({"sub": "ada", "exp": NOW + 60, "iat": "nonsense", "x": {"x": 1}}), identity(None, NOW + 60)),
    ] {
        assert_eq!(verifier("HS256").verify(&signed(&claims), at(NOW)), Ok(expected), "{claims}");
    }
}

#[test]
fn a_token_names_the_device_where_a_claim_is_to() {
    let rules = TokenValidation { device_claim: Some("dev".into()), ..TokenValidation::default() };
    let naming = Verifier { rules, ..verifier("HS256") };
    let device = |verifier: &Verifier, device: Value| {
        let claims = json!({"sub": "ada", "exp": NOW + 60, "dev": device});
        verifier.verify(&signed(&claims), at(NOW)).map(|identity| identity.device.map(|name| name.to_string()))
    };
    assert_eq!(device(&naming, json!("laptop")), Ok(Some("laptop".into())));
    assert_eq!(device(&verifier("HS256"), json!("laptop")), Ok(None));
    assert_eq!(device(&verifier("HS256"), json!(7)), Ok(None));
    for wrong in ["", "a\nb", &"x".repeat(65)] {
        assert_eq!(device(&naming, json!(wrong)), refused(TokenError::Device));
    }
    assert_eq!(device(&naming, json!(7)), refused(TokenError::ClaimType));
    assert_eq!(
        naming.verify(&signed(&json!({"sub": "ada", "exp": NOW + 60})), at(NOW)).map(|identity| identity.device),
        refused(TokenError::NoDevice)
    );
}

#[test]
fn a_token_counts_from_its_nbf_until_its_exp_and_the_leeway_widens_that() {
    let token = signed(&json!({"sub": "ada", "exp": 2000, "nbf": 1000}));
    let verdict = |leeway, now| {
        let rules = TokenValidation { leeway: Duration::from_millis(leeway), ..TokenValidation::default() };
        Verifier { rules, ..verifier("HS256") }
            .verify(&token, at(now))
            .map(|identity| identity.expires.unwrap().unix_seconds())
    };
    for (leeway, from, until) in [(0, 1000, 2000), (30_000, 970, 2030), (1, 999, 2001), (1000, 999, 2001)] {
        assert_eq!(verdict(leeway, from - 1), refused(TokenError::NotYetValid));
        assert_eq!(verdict(leeway, from), Ok(until), "and its session ends when it does");
        assert_eq!(verdict(leeway, until - 1), Ok(until));
        assert_eq!(verdict(leeway, until), refused(TokenError::Expired));
        assert_eq!(verdict(leeway, u64::MAX), refused(TokenError::Expired));
    }
}

#[test]
fn claims_that_will_not_do_are_told_apart() {
    for (claims, error) in [
        (json!({"sub": "ada"}), TokenError::NoExpiry),
        (json!({"sub": "ada", "exp": NOW - 1}), TokenError::Expired),
        (json!({"sub": "ada", "exp": NOW}), TokenError::Expired),
        (json!({"sub": "ada", "exp": NOW + 9, "nbf": NOW + 1}), TokenError::NotYetValid),
        (json!({"sub": "ada", "exp": "2030-01-01"}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": -1}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": 1e300}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": null}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": NOW + 9, "nbf": "now"}), TokenError::ClaimType),
        (json!({"exp": NOW + 9}), TokenError::NoUser),
        (json!({"sub": 7, "exp": NOW + 9}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": 1025}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": -1}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": 1.5}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": "7"}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": "Unlimited"}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": null}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": 4_294_967_299_u64}), TokenError::Limit),
    ] {
        assert_eq!(verifier("HS256").verify(&signed(&claims), at(NOW)), refused(error), "{claims}");
    }
    for (user, error) in
        [("", UserIdError::Empty), ("a\nb", UserIdError::ControlCharacter), (&*"x".repeat(257), UserIdError::TooLong)]
    {
        let token = signed(&json!({"sub": user, "exp": NOW + 9}));
        assert_eq!(verifier("HS256").verify(&token, at(NOW)), Err(CredentialError::UserId(error)));
    }
}

#[test]
fn audience_issuer_and_the_names_of_claims_are_configured() {
    let rules = TokenValidation {
        user_claim: "uid".into(),
        limit_claim: "seats".into(),
        device_claim: None,
        audiences: vec!["chess".into(), "go".into()],
        issuers: vec!["https://id.example.com".into()],
        leeway: Duration::ZERO,
    };
    let verifier = Verifier { rules, ..verifier("HS256") };
    let verdict = |changes: Value| {
        let mut claims =
            json!({"uid": "ada", "exp": NOW + 9, "aud": "go", "iss": "https://id.example.com", "seats": 2, "sub": 1});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        verifier.verify(&signed(&claims), at(NOW)).map(|identity| identity.limit.unwrap().slots())
    };
    assert_eq!(verdict(json!({})), Ok(2));
    assert_eq!(verdict(json!({"aud": ["poker", "chess"]})), Ok(2));
    for aud in [json!("poker"), json!([]), json!(["Go"]), json!("")] {
        assert_eq!(verdict(json!({"aud": aud})), refused(TokenError::Audience));
    }
    for aud in [json!(null), json!(7), json!({"go": 1}), json!(["go", 7])] {
        assert_eq!(verdict(json!({"aud": aud})), refused(TokenError::ClaimType));
    }
    assert_eq!(verdict(json!({"iss": "https://id.example.com/"})), refused(TokenError::Issuer));
    assert_eq!(verdict(json!({"iss": ["https://id.example.com"]})), refused(TokenError::ClaimType));
    let bare = signed(&json!({"uid": "ada", "exp": NOW + 9, "aud": "go"}));
    assert_eq!(verifier.verify(&bare, at(NOW)).map(drop), refused(TokenError::Issuer));
    let bare = signed(&json!({"uid": "ada", "exp": NOW + 9}));
    assert_eq!(verifier.verify(&bare, at(NOW)).map(drop), refused(TokenError::Audience));
}

#[test]
fn what_is_not_authentic_is_refused_whatever_it_claims() {
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let claims = json!({"sub": "ada", "exp": NOW + 60});
    let good = token(&header, &claims);
    assert!(verifier("HS256").verify(&good, at(NOW)).is_ok());
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
        // Only once it is known to be authentic is a token read.
        (signed_with(b"another secret that is quite as long", &json!({"exp": "x"})), TokenError::Signature),
        (text_token(r#"{"alg":"HS256","alg":"HS256"}"#, &claims.to_string()), TokenError::DuplicateClaim),
        (text_token(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","sub":"eve","exp":1700000060}"#), TokenError::DuplicateClaim),
        (text_token(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","exp":1,"exp":1700000060}"#), TokenError::DuplicateClaim),
        (
            text_token(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","s\u0075b":"eve","exp":1700000060}"#),
            TokenError::DuplicateClaim,
        ),
        (text_token(r#"{"alg":"HS256"}"#, r#"["sub"]"#), TokenError::Malformed),
        (text_token(r#"{"alg":"HS256"}"#, &"[".repeat(100_000)), TokenError::Malformed),
        (text_token(r#"{"alg":"HS256"}"#, &format!(r#"{{"x":{}"#, "[".repeat(100_000))), TokenError::Malformed),
        ("a".repeat(1 << 20), TokenError::Malformed),
        (format!("{}.{}.{}", "a".repeat(1 << 18), "a".repeat(1 << 18), "a".repeat(1 << 18)), TokenError::Malformed),
        (format!("{}{}", good, "A".repeat(1 << 20)), TokenError::Signature),
    ] {
        let verdict = verifier("HS256").verify(&token, at(NOW));
        assert_eq!(verdict, refused(error), "{token:.300}");
    }
    for cut in 0..good.len() {
        assert!(verifier("HS256").verify(&good[..cut], at(NOW)).is_err(), "cut off at {cut}");
    }
}

#[test]
fn every_algorithm_lets_in_whom_its_own_key_has_signed_and_nobody_else() {
    let directory = Directory::new();
    let (mut verifiers, mut tokens) = (Vec::new(), Vec::new());
    for name in Algorithm::NAMES {
        let algorithm: Algorithm = name.parse().unwrap();
        let (source, private_key) = match name {
            "HS256" | "HS384" | "HS512" => (KeySource::Secret(Secret::new(SECRET)), None),
            _ => directory.key_pair(name),
        };
        let grant = TokenRequest { private_key, ..grant() };
        tokens.push(mint(algorithm, &source, &TokenValidation::default(), &grant, at(NOW)).unwrap());
        verifiers.push(Verifier { keys: Keys::load(algorithm, &source).unwrap(), rules: TokenValidation::default() });
    }
    for (at_key, verifier) in verifiers.iter().enumerate() {
        for (at_token, token) in tokens.iter().enumerate() {
            let verdict = verifier.verify(token, at(NOW));
            let expected = if at_key == at_token { Ok(()) } else { refused(TokenError::Algorithm) };
            assert_eq!(verdict.map(drop), expected, "{} by {:?}", Algorithm::NAMES[at_token], verifier.keys);
        }
    }
    // Another key of the same algorithm.
    for name in ["RS256", "PS256", "ES256", "EdDSA"] {
        let (other, _) = directory.key_pair(name);
        let other =
            Verifier { keys: Keys::load(name.parse().unwrap(), &other).unwrap(), rules: TokenValidation::default() };
        let token = &tokens[Algorithm::NAMES.iter().position(|known| *known == name).unwrap()];
        assert_eq!(other.verify(token, at(NOW)).map(drop), refused(TokenError::Signature), "{name}");
    }
}

/// The oldest trick: everybody has the public key, and if the token could choose the algorithm, everybody could sign.
#[test]
fn a_public_key_is_no_secret() {
    let directory = Directory::new();
    let (source, _) = directory.key_pair("RS256");
    let pem = fs::read(source.file().unwrap()).unwrap();
    let claims = json!({"sub": "ada", "exp": NOW + 60});
    let forged = signed_with(&pem, &claims);
    let rsa =
        Verifier { keys: Keys::load("RS256".parse().unwrap(), &source).unwrap(), rules: TokenValidation::default() };
    assert_eq!(rsa.verify(&forged, at(NOW)), refused(TokenError::Algorithm));
    let renamed = forged.replacen(&encoded(&json!({"alg": "HS256"})), &encoded(&json!({"alg": "RS256"})), 1);
    assert_eq!(rsa.verify(&renamed, at(NOW)), refused(TokenError::Signature));
    // Nor can an operator make it one by mistake.
    let mistaken = Keys::load("HS256".parse().unwrap(), &KeySource::SecretFile(source.file().unwrap().into()));
    assert!(mistaken.unwrap_err().to_string().contains("it is a key in PEM, a secret is needed"));
}

#[test]
fn keys_of_a_set_are_found_by_their_ids() {
    let directory = Directory::new();
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
        let grant = TokenRequest { key_id: key_id.map(Into::into), private_key: private_key.clone(), ..grant() };
        mint(name.parse().unwrap(), source, &TokenValidation::default(), &grant, at(NOW)).unwrap()
    };
    let verifier = |name: &str, path: &PathBuf| Verifier {
        keys: Keys::load(name.parse().unwrap(), &KeySource::KeySetFile(path.clone())).unwrap(),
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
    assert!(rsa.verify(&token(0, Some("old")), at(NOW)).is_ok() && rsa.verify(&token(1, Some("new")), at(NOW)).is_ok());
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
        assert_eq!(rsa.verify(&token(which, key_id), at(NOW)).map(drop), refused(error), "{which} {key_id:?}");
    }
    assert!(verifier("ES256", &all).verify(&token(2, Some("curve")), at(NOW)).is_ok());
    assert!(verifier("EdDSA", &all).verify(&token(3, None), at(NOW)).is_ok(), "the only one needs no name");
    assert!(verifier("RS256", &set(vec![jwk(0, None)])).verify(&token(0, None), at(NOW)).is_ok());
    let mut unnamed = jwk(4, None);
    unnamed.as_object_mut().unwrap().remove("alg");
    let unnamed = || set(vec![unnamed.clone()]);
    assert!(verifier("ES384", &unnamed()).verify(&token(4, None), at(NOW)).is_ok(), "the curve says which algorithm");

    let mut nameless = vec![jwk(0, None), jwk(1, None), jwk(2, None)];
    let by_trial = verifier("RS256", &set(nameless.clone()));
    assert!(by_trial.verify(&token(0, None), at(NOW)).is_ok() && by_trial.verify(&token(1, None), at(NOW)).is_ok());
    assert_eq!(by_trial.verify(&token(0, Some("old")), at(NOW)).map(drop), refused(TokenError::UnknownKey));

    let why = |name: &str, path: PathBuf| {
        Keys::load(name.parse().unwrap(), &KeySource::KeySetFile(path)).unwrap_err().to_string()
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
fn keys_that_will_not_do_are_refused_in_words() {
    let directory = Directory::new();
    let (rsa, rsa_private) = directory.key_pair("RS256");
    let (curve, _) = directory.key_pair("ES384");
    let public = |path: PathBuf| KeySource::PublicKeyFile(path);
    let secret = |text: &[u8]| KeySource::SecretFile(directory.write(&format!("secret of {}", text.len()), text));
    let certificate = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for (name, source, words) in [
        ("HS256", secret(b"too short\n"), "it has 9 bytes, at least 32 are needed (RFC 7518, 3.2)"),
        ("HS384", secret(&[b'x'; 47]), "at least 48 are needed"),
        ("HS512", secret(&[b'x'; 63]), "at least 64 are needed"),
        ("RS256", secret(SECRET), "it needs a public key, not a secret"),
        ("HS256", rsa.clone(), "it needs a secret, not a public key"),
        ("RS256", public(rsa_private.unwrap()), "it is a private key, which should not be on this machine"),
        (
            "RS256",
            public(directory.write("cert", certificate)),
            "`openssl x509 -pubkey -noout` extracts the public key",
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
        let error = Keys::load(name.parse().unwrap(), &source).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(matches!(error, KeyError::Unusable { .. } | KeyError::Unreadable { .. }));
    }
    for (name, least) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        assert!(Keys::load(name.parse().unwrap(), &secret(&vec![b'x'; least])).is_ok(), "{name}");
    }
    assert_eq!(Secret::new(b"x\r\n"), Secret::new(b"x"));
    assert_eq!(Secret::new(b" x\n\n"), Secret::new(b" x\n\n"), "one line break, no more, and no space");
    assert!("HS255".parse::<Algorithm>().unwrap_err().starts_with("it must be one of HS256, "));
}

#[test]
fn an_authenticator_goes_by_the_keys_it_has_now_and_by_the_wall_clock() {
    let manual_clock = Arc::<ManualClock>::default();
    let tokens = Arc::new(JwtAuthenticator::new(verifier("HS256"), Clock::manual(manual_clock.clone())));
    let good: Box<str> = signed(&json!({"sub": "ada", "exp": NOW + 60})).into();
    let verdict = |credential| tokens.authenticate(&credential).map(|identity| identity.user.as_str().to_owned());
    manual_clock.set(Timestamp::from_epoch(Duration::from_secs(NOW + 59)));
    assert_eq!(verdict(Credential::None), refused(TokenError::Missing));
    assert_eq!(verdict(Credential::Text(good.clone())), Ok("ada".into()));
    assert_eq!(verdict(Credential::Token(good.clone())), Ok("ada".into()));
    manual_clock.set_wall_ahead(1000);
    assert_eq!(verdict(Credential::Token(good.clone())), refused(TokenError::Expired));
    manual_clock.set_wall_ahead(0);
    tokens.set(verifier("HS512"));
    assert_eq!(verdict(Credential::Token(good)), refused(TokenError::Algorithm));
    assert_eq!(tokens.verifier().keys.algorithm().name(), "HS512");
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

#[test]
fn a_token_that_is_made_says_what_the_rules_ask_for() {
    let rules = TokenValidation {
        user_claim: "uid".into(),
        limit_claim: "seats".into(),
        device_claim: None,
        audiences: vec!["go".into(), "chess".into()],
        issuers: vec!["me".into()],
        leeway: Duration::ZERO,
    };
    let source = KeySource::Secret(Secret::new(SECRET));
    let limited = TokenRequest { limit: SlotLimit::new(2).ok(), ..grant() };
    let token = mint("HS256".parse().unwrap(), &source, &rules, &limited, at(NOW)).unwrap();
    let verifier = Verifier { rules, ..verifier("HS256") };
    let identity = verifier.verify(&token, at(NOW)).unwrap();
    assert_eq!((identity.user.as_str(), identity.limit.unwrap().slots()), ("ada", 2));
    assert_eq!(identity.expires, Some(at(NOW + 3600)));

    let directory = Directory::new();
    let (public, private) = directory.key_pair("ES256");
    let es256: Algorithm = "ES256".parse().unwrap();
    let make = |algorithm, source: &KeySource, private_key: Option<PathBuf>| {
        mint(algorithm, source, &TokenValidation::default(), &TokenRequest { private_key, ..grant() }, at(NOW))
            .unwrap_err()
    };
    assert!(matches!(make(es256, &public, None), MintError::NoPrivateKey(_)));
    assert!(matches!(make("HS256".parse().unwrap(), &source, private), MintError::UnwantedPrivateKey(_)));
    assert!(matches!(make(es256, &public, Some(directory.write("x", b"x"))), MintError::PrivateKey { .. }));
    assert!(matches!(make(es256, &public, Some(directory.path("missing"))), MintError::Key(_)));
    let short = KeySource::Secret(Secret::new(b"short"));
    assert!(matches!(make("HS256".parse().unwrap(), &short, None), MintError::Key(_)));
}

#[test]
fn an_explanation_shows_the_claims_and_says_why_and_what_is_configured() {
    let rules = TokenValidation { audiences: vec!["go".into()], ..TokenValidation::default() };
    let verifier = Verifier { rules, ..verifier("HS256") };
    let good = signed(&json!({"sub": "ada", "exp": NOW + 90, "aud": "go", "max_sessions": 2}));
    let text = explain(&verifier, &good, at(NOW)).unwrap();
    assert!(text.starts_with("signed with \"HS256\"\nclaims {\n"), "{text}");
    assert!(text.contains("valid until 2023-11-14T22:14:50Z, in 1m 30s\n"), "{text}");
    assert!(text.ends_with("accepted: user \"ada\", with a limit of 2, for another 1m 30s"), "{text}");
    assert!(!text.contains(good.rsplit_once('.').unwrap().1), "the signature is not shown");
    for (token, words) in [
        (
            signed(&json!({"sub": "ada", "exp": NOW - 60, "aud": "go"})),
            "refused: Token has expired (by this machine's clock; jwt_leeway is 0s)",
        ),
        (
            signed(&json!({"sub": "ada", "exp": NOW + 60, "aud": "chess"})),
            "refused: Token is meant for another audience (jwt_audience is go)",
        ),
        (
            signed_with(&[7; 40], &json!({})),
            "refused: Token's signature is not valid (it was signed with another key, or changed since)",
        ),
        ("ada".into(), "refused: Token is not a signed JSON Web Token"),
        (token(&json!({"alg": "HS512"}), &json!({})), "(jwt_algorithm is HS256)"),
    ] {
        let text = explain(&verifier, &token, at(NOW)).unwrap_err();
        assert!(text.contains(words), "{text}");
    }
    for (claims, now, words) in [
        (json!({"exp": NOW}), NOW, "valid until 2023-11-14T22:13:20Z, 0s ago\n"),
        (json!({"nbf": NOW - 1}), NOW, "valid from 2023-11-14T22:13:19Z, 1s ago\n"),
        (json!({"exp": 253_402_300_799_u64}), 253_402_300_798, "valid until 9999-12-31T23:59:59Z, in 1s\n"),
        // There is no such way to write it.
        (json!({"exp": 253_402_300_800_u64}), 253_402_300_799, "valid until in 1s\n"),
        (json!({"exp": u64::MAX}), u64::MAX - 1, "valid until in 1s\n"),
        (json!({"exp": NOW * 1000}), NOW, "; the claim counts seconds, is this milliseconds?\n"),
        (json!({"exp": NOW * 400}), NOW, "22h 40m\n"),
    ] {
        let text = explain(&verifier, &signed(&claims), at(now)).unwrap_err();
        assert!(text.contains(words), "{text}");
    }
    let far = signed(&json!({"sub": "ada", "exp": u64::MAX, "aud": "go"}));
    assert!(explain(&verifier, &far, at(NOW)).is_ok());
}

/// A temporary directory, and keys in it.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A fresh key for this algorithm: where its public half is, and its private half.
    fn key_pair(&self, name: &str) -> (KeySource, Option<PathBuf>) {
        let kind: &SignatureAlgorithm = match name {
            "ES256" => &PKCS_ECDSA_P256_SHA256,
            "ES384" => &PKCS_ECDSA_P384_SHA384,
            "EdDSA" => &PKCS_ED25519,
            _ => &PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let number = fs::read_dir(self.0.path()).unwrap().count();
        let public = self.write(&format!("{number}.pub"), pair.public_key_pem().as_bytes());
        let private = self.write(&format!("{number}.key"), pair.serialize_pem().as_bytes());
        (KeySource::PublicKeyFile(public), Some(private))
    }
}

fn grant() -> TokenRequest {
    TokenRequest {
        user: UserId::parse("ada").unwrap(),
        lifetime: Duration::from_secs(3600),
        limit: None,
        device: None,
        key_id: None,
        private_key: None,
    }
}

fn verifier(name: &str) -> Verifier {
    let keys = Keys::load(name.parse().unwrap(), &KeySource::Secret(Secret::new(SECRET))).unwrap();
    Verifier { keys, rules: TokenValidation::default() }
}

fn at(second: u64) -> UnixSeconds {
    UnixSeconds::from_unix_seconds(second)
}

fn refused<T>(error: TokenError) -> Result<T, CredentialError> {
    Err(CredentialError::Token(error))
}

fn encoded(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

/// A token with the usual header and a good signature.
fn signed(claims: &Value) -> String {
    signed_with(SECRET, claims)
}

fn signed_with(secret: &[u8], claims: &Value) -> String {
    sign(secret, &format!("{}.{}", encoded(&json!({"alg": "HS256"})), encoded(claims)))
}

/// A token with any header and a good signature by HS256.
fn token(header: &Value, claims: &Value) -> String {
    text_token(&header.to_string(), &claims.to_string())
}

fn text_token(header: &str, claims: &str) -> String {
    sign(SECRET, &format!("{}.{}", BASE64.encode(header), BASE64.encode(claims)))
}

fn sign(secret: &[u8], text: &str) -> String {
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{text}.{signature}")
}
