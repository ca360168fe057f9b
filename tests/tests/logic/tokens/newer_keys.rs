//! Tokens that wait for newer keys of their provider.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::json;
use session_core::protocol::{CredentialError, TokenError};
use shell::auth::{
    Algorithm, Authenticator as _, JwtAuthenticator, KeyEndpoint, KeyProvider, KeySource, Keys, TokenValidation,
    Verifier,
};
use shell::runtime::clock::Clock;
use smol::future::{self, FutureExt as _};
use tests::key_provider::{Answer, TestProvider};

const UNKNOWN_KEY: CredentialError = CredentialError::Token(TokenError::UnknownKey);

/// The keys come between the check of a token and its wish to wait for them. It must not wait for those after them.
#[test]
fn keys_that_came_during_the_check_are_not_awaited() {
    let provider = TestProvider::start();
    let point = KeyPair::generate_for(&PKCS_ED25519).unwrap().public_key_raw().to_vec();
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": BASE64.encode(point)});
    provider.set("/keys", Answer::json(json!({"keys": [key]}).to_string()));
    let endpoint = KeyEndpoint::KeySet(provider.url("/keys").parse().unwrap());
    let source = KeySource::Provider(KeyProvider { endpoint, ca: None });
    let keys = Keys::load(&["EdDSA".parse::<Algorithm>().unwrap()], &source).unwrap();
    let clock = Clock::start();
    let authenticator = JwtAuthenticator::new(Verifier { keys, rules: TokenValidation::default() }, clock.clone());
    let checked = authenticator.keys_version();
    let fetched = async {
        while authenticator.verifier().keys.count() == 0 {
            smol::Timer::after(Duration::from_millis(1)).await;
        }
        // The fetch has ended, too.
        smol::Timer::after(Duration::from_millis(100)).await;
    };
    smol::block_on(authenticator.refresh_keys().or(fetched));
    let until = clock.now() + Duration::from_secs(60);
    let at_once = |than| {
        let newer = authenticator.newer_keys(UNKNOWN_KEY, than, until).unwrap();
        smol::block_on(future::poll_once(newer)).is_some()
    };
    assert!(at_once(checked), "the keys are there");
    assert!(!at_once(authenticator.keys_version()), "these keys do not have it");
}
