//! What `token make` and `token check` do.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use session_core::UserId;
use session_core::ledger::SlotLimit;
use shell::auth::{Algorithm, KeySource, MintError, Secret, TokenRequest, TokenValidation, Verifier, explain, mint};
use shell::runtime::user_id_form::UserIdForm;

use super::fixtures::*;

#[test]
fn minted_token_satisfies_the_validation_rules() {
    let rules = TokenValidation {
        user_claim: "uid".parse().unwrap(),
        user_id_form: UserIdForm::Precis,
        limit_claim: "seats".parse().unwrap(),
        device_claim: None,
        audiences: vec!["go".into(), "chess".into()],
        issuers: vec!["me".into()],
        leeway: Duration::ZERO,
    };
    let source = KeySource::Secret(Secret::new(SECRET));
    // The verifier maps the user, not the one who makes the token.
    let user = UserId::parse("ADA").unwrap();
    let limited = TokenRequest { user, limit: SlotLimit::new(2).ok(), ..token_request() };
    let token = mint(&["HS256".parse().unwrap()], &source, &rules, &limited, at(NOW)).unwrap();
    let verifier = Verifier { rules, ..verifier("HS256") };
    let identity = verifier.verdict(&token, at(NOW)).unwrap();
    assert_eq!((identity.user.as_str(), identity.limit.unwrap().slots()), ("ada", 2));
    assert_eq!(identity.expires, Some(at(NOW + 3600)));

    let directory = KeyDirectory::new();
    let (public, private) = directory.key_pair("ES256");
    let es256: Algorithm = "ES256".parse().unwrap();
    let make = |algorithm, source: &KeySource, private_key: Option<PathBuf>| {
        mint(
            &[algorithm],
            source,
            &TokenValidation::default(),
            &TokenRequest { private_key, ..token_request() },
            at(NOW),
        )
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
fn explanation_shows_claims_reason_and_configuration() {
    let rules = TokenValidation { audiences: vec!["go".into()], ..TokenValidation::default() };
    let verifier = Verifier { rules, ..verifier("HS256") };
    let good = signed(&json!({"sub": "ada", "exp": NOW + 90, "aud": "go", "max_sessions": 2}));
    let text = explain(&verifier, &good, at(NOW)).unwrap();
    assert!(text.starts_with("signed with \"HS256\"\nclaims {\n"), "{text}");
    assert!(text.contains("valid until 2023-11-14T22:14:50Z, in 1m 30s\n"), "{text}");
    assert!(text.ends_with("accepted: user \"ada\", with a limit of 2, for another 1m 30s"), "{text}");
    assert!(!text.contains(good.rsplit_once('.').unwrap().1), "the signature is not shown");
    for (token, message) in [
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
        assert!(text.contains(message), "{text}");
    }
    for (claims, now, message) in [
        (json!({"exp": NOW}), NOW, "valid until 2023-11-14T22:13:20Z, 0s ago\n"),
        (json!({"nbf": NOW - 1}), NOW, "valid from 2023-11-14T22:13:19Z, 1s ago\n"),
        (json!({"exp": 253_402_300_799_u64}), 253_402_300_798, "valid until 9999-12-31T23:59:59Z, in 1s\n"),
        // RFC 3339 has no later date.
        (json!({"exp": 253_402_300_800_u64}), 253_402_300_799, "valid until in 1s\n"),
        (json!({"exp": u64::MAX}), u64::MAX - 1, "valid until in 1s\n"),
        (json!({"exp": NOW * 1000}), NOW, "; the claim counts seconds, is this milliseconds?\n"),
        (json!({"exp": NOW * 400}), NOW, "22h 40m\n"),
    ] {
        let text = explain(&verifier, &signed(&claims), at(now)).unwrap_err();
        assert!(text.contains(message), "{text}");
    }
    let far = signed(&json!({"sub": "ada", "exp": u64::MAX, "aud": "go"}));
    assert!(explain(&verifier, &far, at(NOW)).is_ok());
}
