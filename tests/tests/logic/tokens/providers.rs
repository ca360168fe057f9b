//! Claims in the shapes that identity providers and applications give them.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use serde_json::{Value, json};
use session_core::DisplayName;
use session_core::ledger::SlotLimit;
use shell::auth::{InvalidClaim, KeySource, MintError, Secret, TokenRequest, TokenValidation, Verifier, mint};

use super::fixtures::*;

/// The limit in a token, as text. `-`: the token has none.
fn limit(value: &Value) -> String {
    let claims = json!({"sub": "ada", "exp": NOW + 60, "max_sessions": value});
    let verdict = verifier("HS256").verdict(&signed(&claims), at(NOW));
    verdict.map_or_else(
        |_| "refused".into(),
        |identity| identity.limit.map_or("-".into(), |limit| limit.slots().to_string()),
    )
}

#[test]
fn limit_is_any_whole_number_however_written() {
    for (value, expected) in [
        // Cognito's custom attributes and Keycloak's attribute mapper make strings.
        (json!("2"), "2"),
        (json!("0"), "0"),
        (json!("2.0"), "2"),
        (json!(" 2 "), "2"),
        (json!(2.0), "2"),
        (json!(2e0), "2"),
        (json!(0.0), "0"),
        (json!(-0.0), "0"),
        (json!(null), "-"),
        // What applications write for "unlimited".
        (json!(1025), "1024"),
        (json!(999_999), "1024"),
        (json!("999999"), "1024"),
        (json!(4_294_967_299_u64), "1024"),
        (json!(u64::MAX), "1024"),
        (json!(1e300), "1024"),
        (json!("unlimited"), "1024"),
        (json!(-1), "refused"),
        (json!("-1"), "refused"),
        (json!(1.5), "refused"),
        (json!(1024.5), "refused"),
        (json!("1.5"), "refused"),
        (json!(""), "refused"),
        (json!("two"), "refused"),
        (json!("02"), "refused"),
        (json!("+2"), "refused"),
        (json!("null"), "refused"),
        (json!("\"2\""), "refused"),
        (json!("2 3"), "refused"),
        (json!("Unlimited"), "refused"),
        (json!(true), "refused"),
        (json!([2]), "refused"),
        (json!({"max": 2}), "refused"),
    ] {
        assert_eq!(limit(&value), expected, "{value}");
    }
}

#[test]
fn integer_user_id_counts_as_its_decimal_text() {
    let user = |id: &str| {
        let token = text_token(r#"{"alg":"HS256"}"#, &format!(r#"{{"sub":{id},"exp":{}}}"#, NOW + 60));
        verifier("HS256").verdict(&token, at(NOW)).map_or_else(|_| "refused".into(), |it| it.user.as_str().to_owned())
    };
    for (id, expected) in [
        ("42", "42"),
        ("0", "0"),
        ("-7", "-7"),
        ("42.0", "42"),
        ("42.00000000000000000000", "42"),
        ("1125899906842623.0", "1125899906842623"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("\"42\"", "42"),
        ("\"042\"", "042"),
        // Several whole numbers share one floating-point number here, so two users would share one id.
        ("18446744073709551616", "refused"),
        ("1125899906842624.0", "refused"),
        // The parser makes this one 9007199254740990.
        ("9007199254740991.0", "refused"),
        ("1e300", "refused"),
        ("4.2", "refused"),
        ("null", "refused"),
        ("true", "refused"),
        ("[42]", "refused"),
        ("{}", "refused"),
    ] {
        assert_eq!(user(id), expected, "{id}");
    }
}

#[test]
fn expiry_is_any_number_in_the_future() {
    let expires = |exp: &str, nbf: &str| {
        let token = text_token(r#"{"alg":"HS256"}"#, &format!(r#"{{"sub":"ada","exp":{exp},"nbf":{nbf}}}"#));
        verifier("HS256").verdict(&token, at(NOW)).map(|identity| identity.expires.unwrap().unix_seconds())
    };
    for exp in ["18446744073709551615", "18446744073709551616", "1e20", "1e300", &"9".repeat(300)] {
        assert_eq!(expires(exp, "null"), Ok(u64::MAX), "{exp}");
    }
    assert_eq!(expires("1700000001.9", "1700000000.9"), Ok(NOW + 1));
    assert_eq!(expires("1.70000006e9", "-1e300"), Ok(NOW + 60));
    for (exp, nbf) in [("-1", "0"), ("-1e300", "0"), ("0", "0"), ("1700000000.9", "0"), ("1e300", "1e299")] {
        assert!(expires(exp, nbf).is_err(), "{exp} {nbf}");
    }
}

#[test]
fn nested_claims_are_named_by_a_pointer() {
    let rules = TokenValidation {
        user_claim: "/identity/id".parse().unwrap(),
        limit_claim: "/resource_access/player.app/attributes/0/seats".parse().unwrap(),
        device_claim: "https://example.com/device".parse().ok(),
        ..TokenValidation::default()
    };
    let verifier = Verifier { rules, ..verifier("HS256") };
    let verdict = |changes: Value| {
        let mut claims = json!({
            "exp": NOW + 60,
            "identity": {"id": 42},
            "resource_access": {"player.app": {"attributes": [{"seats": "2"}]}},
            "https://example.com/device": "laptop",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        verifier.verify(&signed(&claims), at(NOW))
    };
    let identity = verdict(json!({})).unwrap();
    assert_eq!((identity.user.as_str(), identity.limit.unwrap().slots()), ("42", 2));
    assert_eq!(identity.device.unwrap().as_str(), "laptop");
    assert_eq!(verdict(json!({"resource_access": {}})).unwrap().limit, None, "without it the server's limit applies");
    for (changes, name, found) in [
        (json!({"identity": {}}), "/identity/id", "missing"),
        (json!({"identity": "42"}), "/identity/id", "missing"),
        (json!({"identity": {"id": {}}}), "/identity/id", "object"),
        (json!({"https://example.com/device": null}), "https://example.com/device", "null"),
    ] {
        assert_eq!(verdict(changes).unwrap_err().claim, Some(InvalidClaim { name: name.into(), found }));
    }
}

#[test]
fn invalid_claim_is_named_with_its_type() {
    let rules = TokenValidation {
        device_claim: "dev".parse().ok(),
        audiences: vec!["go".into()],
        issuers: vec!["me".into()],
        ..TokenValidation::default()
    };
    let verifier = Verifier { rules, ..verifier("HS256") };
    for (claim, value, found) in [
        ("exp", json!("tomorrow"), "string"),
        ("exp", json!(NOW - 1), "number"),
        ("exp", json!(null), "null"),
        ("nbf", json!([]), "array"),
        ("nbf", json!(NOW + 1), "number"),
        ("aud", json!("chess"), "string"),
        ("aud", json!(["go", 7]), "array"),
        ("iss", json!({"me": 1}), "object"),
        ("sub", json!(true), "boolean"),
        ("sub", json!("a\nb"), "string"),
        ("max_sessions", json!("two"), "string"),
        ("max_sessions", json!(1.5), "number"),
        ("dev", json!(null), "null"),
        ("dev", json!(""), "string"),
    ] {
        let mut claims = json!({"sub": "ada", "exp": NOW + 60, "aud": "go", "iss": "me", "dev": "laptop"});
        assert!(verifier.verify(&signed(&claims), at(NOW)).is_ok());
        claims[claim] = value;
        let invalid = verifier.verify(&signed(&claims), at(NOW)).unwrap_err();
        assert_eq!(invalid.claim, Some(InvalidClaim { name: claim.into(), found }), "{claims}");
    }
    // Without a valid signature nothing is said about the claims.
    let forged = signed_with(&[7; 40], &json!({"sub": true}));
    assert_eq!(verifier.verify(&forged, at(NOW)).unwrap_err().claim, None);
}

#[test]
fn minted_claims_are_where_the_rules_want_them() {
    let rules = TokenValidation {
        user_claim: "/identity/id".parse().unwrap(),
        limit_claim: "/identity/plan/seats".parse().unwrap(),
        device_claim: "dev".parse().ok(),
        ..TokenValidation::default()
    };
    let request =
        TokenRequest { limit: SlotLimit::new(2).ok(), device: DisplayName::parse("laptop"), ..token_request() };
    let source = KeySource::Secret(Secret::new(SECRET));
    let make = |rules: &TokenValidation| mint(&["HS256".parse().unwrap()], &source, rules, &request, at(NOW));
    let token = make(&rules).unwrap();
    let verifier = Verifier { rules: rules.clone(), ..verifier("HS256") };
    let identity = verifier.verify(&token, at(NOW)).unwrap();
    assert_eq!((identity.user.as_str(), identity.limit.unwrap().slots()), ("ada", 2));
    let inside = TokenValidation { limit_claim: "/identity/id/seats".parse().unwrap(), ..rules };
    assert!(matches!(make(&inside), Err(MintError::ClaimInsideAnother(_))));
}
