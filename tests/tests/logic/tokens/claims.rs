//! What the claims of a token decide.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use session_core::ledger::SlotLimit;
use session_core::protocol::{Credential, CredentialError, TokenError};
use session_core::session::Identity;
use session_core::{Timestamp, UnixSeconds, UserId, UserIdError};
use shell::auth::Authenticator as _;
use shell::auth::{JwtAuthenticator, TokenValidation, Verifier};
use shell::runtime::clock::{Clock, ManualClock};
use shell::runtime::user_id_form::UserIdForm;

use super::fixtures::*;

#[test]
fn valid_token_gives_user_expiry_and_limit() {
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
        // A NumericDate may have a fraction (RFC 7519, 2), which is cut off to the disadvantage of the bearer.
        (json!({"sub": "ada", "exp": 1_700_000_060.9, "nbf": 1_700_000_000.9}), identity(None, NOW + 60)),
        (json!({"sub": "ada", "exp": u64::MAX, "nbf": NOW, "aud": "anybody", "iss": ["x"]}), identity(None, u64::MAX)),
        (json!({"sub": "ada", "exp": NOW + 60, "iat": "nonsense", "x": {"x": 1}}), identity(None, NOW + 60)),
    ] {
        assert_eq!(verifier("HS256").verdict(&signed(&claims), at(NOW)), Ok(expected), "{claims}");
    }
}

#[test]
fn device_claim_names_the_device() {
    let rules = TokenValidation { device_claim: "dev".parse().ok(), ..TokenValidation::default() };
    let naming = Verifier { rules, ..verifier("HS256") };
    let device = |verifier: &Verifier, device: Value| {
        let claims = json!({"sub": "ada", "exp": NOW + 60, "dev": device});
        verifier.verdict(&signed(&claims), at(NOW)).map(|identity| identity.device.map(|name| name.to_string()))
    };
    assert_eq!(device(&naming, json!("laptop")), Ok(Some("laptop".into())));
    assert_eq!(device(&verifier("HS256"), json!("laptop")), Ok(None));
    assert_eq!(device(&verifier("HS256"), json!(7)), Ok(None));
    for wrong in ["", "a\nb", &"x".repeat(65)] {
        assert_eq!(device(&naming, json!(wrong)), refused(TokenError::Device));
    }
    assert_eq!(device(&naming, json!(7)), Ok(Some("7".into())));
    assert_eq!(device(&naming, json!(7.5)), refused(TokenError::ClaimType));
    assert_eq!(device(&naming, json!(null)), refused(TokenError::NoDevice));
    assert_eq!(
        naming.verdict(&signed(&json!({"sub": "ada", "exp": NOW + 60})), at(NOW)).map(|identity| identity.device),
        refused(TokenError::NoDevice)
    );
}

#[test]
fn leeway_widens_nbf_and_exp() {
    let token = signed(&json!({"sub": "ada", "exp": 2000, "nbf": 1000}));
    let verdict = |leeway, now| {
        let rules = TokenValidation { leeway: Duration::from_millis(leeway), ..TokenValidation::default() };
        Verifier { rules, ..verifier("HS256") }
            .verdict(&token, at(now))
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
fn every_invalid_claim_has_its_own_error() {
    for (claims, error) in [
        (json!({"sub": "ada"}), TokenError::NoExpiry),
        (json!({"sub": "ada", "exp": NOW - 1}), TokenError::Expired),
        (json!({"sub": "ada", "exp": NOW}), TokenError::Expired),
        (json!({"sub": "ada", "exp": NOW + 9, "nbf": NOW + 1}), TokenError::NotYetValid),
        (json!({"sub": "ada", "exp": "2030-01-01"}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": -1}), TokenError::Expired),
        (json!({"sub": "ada", "exp": null}), TokenError::NoExpiry),
        (json!({"sub": "ada", "exp": [NOW + 9]}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": NOW + 9, "nbf": "now"}), TokenError::ClaimType),
        (json!({"exp": NOW + 9}), TokenError::NoUser),
        (json!({"sub": null, "exp": NOW + 9}), TokenError::NoUser),
        (json!({"sub": true, "exp": NOW + 9}), TokenError::ClaimType),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": -1}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": 1.5}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": "7.5"}), TokenError::Limit),
        (json!({"sub": "ada", "exp": NOW + 9, "max_sessions": "Unlimited"}), TokenError::Limit),
    ] {
        assert_eq!(verifier("HS256").verdict(&signed(&claims), at(NOW)), refused(error), "{claims}");
    }
    for (user, error) in
        [("", UserIdError::Empty), ("a\nb", UserIdError::ControlCharacter), (&*"x".repeat(257), UserIdError::TooLong)]
    {
        let token = signed(&json!({"sub": user, "exp": NOW + 9}));
        assert_eq!(verifier("HS256").verdict(&token, at(NOW)), Err(CredentialError::UserId(error)));
    }
}

#[test]
fn audience_issuer_and_claim_names_are_configurable() {
    let rules = TokenValidation {
        user_id_form: UserIdForm::Exact,
        user_claim: "uid".parse().unwrap(),
        limit_claim: "seats".parse().unwrap(),
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
        verifier.verdict(&signed(&claims), at(NOW)).map(|identity| identity.limit.unwrap().slots())
    };
    assert_eq!(verdict(json!({})), Ok(2));
    assert_eq!(verdict(json!({"aud": ["poker", "chess"]})), Ok(2));
    for aud in [json!("poker"), json!([]), json!(["Go"]), json!(""), json!(null)] {
        assert_eq!(verdict(json!({"aud": aud})), refused(TokenError::Audience));
    }
    for aud in [json!(7), json!({"go": 1}), json!(["go", 7])] {
        assert_eq!(verdict(json!({"aud": aud})), refused(TokenError::ClaimType));
    }
    assert_eq!(verdict(json!({"iss": "https://id.example.com/"})), refused(TokenError::Issuer));
    assert_eq!(verdict(json!({"iss": ["https://id.example.com"]})), refused(TokenError::ClaimType));
    let bare = signed(&json!({"uid": "ada", "exp": NOW + 9, "aud": "go"}));
    assert_eq!(verifier.verdict(&bare, at(NOW)).map(drop), refused(TokenError::Issuer));
    let bare = signed(&json!({"uid": "ada", "exp": NOW + 9}));
    assert_eq!(verifier.verdict(&bare, at(NOW)).map(drop), refused(TokenError::Audience));
}

#[test]
fn authenticator_uses_current_keys_and_wall_clock() {
    let manual_clock = Arc::<ManualClock>::default();
    let authenticator = Arc::new(JwtAuthenticator::new(verifier("HS256"), Clock::manual(manual_clock.clone())));
    let good: Box<str> = signed(&json!({"sub": "ada", "exp": NOW + 60})).into();
    let verdict = |credential| {
        let identity = authenticator.authenticate(&credential).map_err(|invalid| invalid.error)?;
        Ok(identity.user.as_str().to_owned())
    };
    manual_clock.set(Timestamp::from_epoch(Duration::from_secs(NOW + 59)));
    assert_eq!(verdict(Credential::None), refused(TokenError::Missing));
    assert_eq!(verdict(Credential::Text(good.clone())), Ok("ada".into()));
    assert_eq!(verdict(Credential::Token(good.clone())), Ok("ada".into()));
    manual_clock.set_wall_ahead(1000);
    assert_eq!(verdict(Credential::Token(good.clone())), refused(TokenError::Expired));
    manual_clock.set_wall_ahead(0);
    authenticator.set(verifier("HS512"));
    assert_eq!(verdict(Credential::Token(good)), refused(TokenError::Algorithm));
    assert_eq!(authenticator.verifier().keys.algorithm_names(), "HS512");
}
