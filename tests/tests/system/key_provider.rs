//! A server process whose keys come from an identity provider.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::key_provider::{Answer, TestProvider};
use tests::raw_client::{RawClient, Received};
use tests::test_ca::TestCa;
use tests::test_process::{TestProcess, send_signal, without_connection_limits};
use tests::waiting::eventually;

pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

pub(crate) const ACCEPTED: &str = "AUTHENTICATE_SUCCESS";
pub(crate) const UNKNOWN_KEY: &str = "Token was signed with a key that this server does not know";
pub(crate) const TRY_AGAIN: &str = "The credential cannot be checked now, try again later";

/// A key of the provider.
pub(crate) struct Signer {
    algorithm: Algorithm,
    id: &'static str,
    key: EncodingKey,
}

impl Signer {
    pub(crate) fn es256(id: &'static str) -> Self {
        let pem = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        Self { algorithm: Algorithm::ES256, id, key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap() }
    }

    fn rs256(id: &'static str) -> Self {
        let pem = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem();
        Self { algorithm: Algorithm::RS256, id, key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap() }
    }

    fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = self.id.into();
        jwk
    }

    pub(crate) fn token(&self, user: &str) -> String {
        self.token_with_id(user, self.id)
    }

    pub(crate) fn token_with_id(&self, user: &str, id: &str) -> String {
        let header = Header { kid: Some(id.into()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, &json!({"sub": user, "exp": 1e300}), &self.key).unwrap()
    }
}

pub(crate) fn key_set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// A server with these settings, and its log.
pub(crate) struct ProviderServer {
    pub(crate) process: TestProcess,
    log: Arc<Mutex<String>>,
    pub(crate) directory: Arc<TempDir>,
}

impl ProviderServer {
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), settings)
    }

    pub(crate) fn start_in(directory: Arc<TempDir>, settings: &str) -> Self {
        let config = directory.path().join("sessions.toml");
        fs::write(&config, with_common(settings)).unwrap();
        let mut command = without_connection_limits(SERVER);
        command.arg("--config").arg(&config).stderr(Stdio::piped());
        let mut process = TestProcess::run_as(command, &directory.path().join("data"));
        let (mut stderr, log) = (process.stderr().unwrap(), Arc::<Mutex<String>>::default());
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut bytes) {
                lines.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { process, log, directory }
    }

    pub(crate) fn reload(&self, settings: &str) {
        fs::write(self.directory.path().join("sessions.toml"), with_common(settings)).unwrap();
        send_signal(self.process.id(), Signal::HUP);
    }

    /// The line of the log with this text, once it is there.
    pub(crate) fn logged(&self, text: &str) -> String {
        let line = || self.log.lock().unwrap().lines().find(|line| line.contains(text)).map(str::to_owned);
        eventually(&format!("{text:?} is logged in {}", self.log.lock().unwrap()), || line().is_some());
        line().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The answer to this token, and the connection.
    pub(crate) fn answer(&self, token: &str) -> (String, RawClient) {
        let mut peer = RawClient::open(self.process.address);
        peer.text(&json!({"type": "AUTHENTICATE", "payload": token}).to_string());
        let received = peer.read();
        let Received::Text(answer) = received else { panic!("{received:?}") };
        (answer, peer)
    }

    pub(crate) fn expect(&self, token: &str, answer: &str) -> RawClient {
        let (text, peer) = self.answer(token);
        assert!(text.contains(answer), "{text}\n{}", self.log());
        peer
    }
}

fn with_common(settings: &str) -> String {
    // On a busy machine a fetch may take its time.
    let timeout = if settings.contains("store_timeout") { "" } else { "store_timeout = \"15s\"\n" };
    format!("auth = \"jwt\"\nlog = \"info\"\nlimit = 100\n{timeout}{settings}")
}

/// The settings for keys at this URL.
pub(crate) fn keys_at(url: &str) -> String {
    format!("jwt_algorithm = [\"RS256\", \"ES256\"]\njwt_key_set_url = \"{url}\"\n")
}

/// What `server check-token` prints about this token, and its exit code.
fn check_token(token: &str, config: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(SERVER);
    command.arg("--config").arg(config).args(["check-token", "-"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn tls_provider(directory: &Path) -> (TestProvider, PathBuf) {
    let ca = TestCa::new(directory);
    let provider = TestProvider::with_tls(ca.certify("provider", &["127.0.0.1"]).load().unwrap());
    (provider, ca.ca)
}

#[test]
fn keys_come_from_a_url_whose_certificate_is_trusted() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let (provider, ca) = tls_provider(directory.path());
    let key = Signer::es256("first");
    provider.set("/keys", Answer::json_with("cache-control: public, max-age=7200", key_set(&[&key])));
    let settings = keys_at(&provider.url("/keys"));
    let trusting = format!("{settings}jwt_key_set_ca = {ca:?}\n");

    let server = ProviderServer::start_in(Arc::clone(&directory), &trusting);
    let _ada = server.expect(&key.token("ada"), ACCEPTED);
    let line = server.logged("fetched the keys of tokens");
    assert!(line.contains("keys=1") && line.contains(r#"key_ids="\"first\" (ES256)""#), "{line}");
    assert!(line.contains(r#"next_in="1h "#), "80 to 90 percent of two hours: {line}");
    assert_eq!(provider.requests("/keys"), 1);

    let (code, text) = check_token(&key.token("ada"), &directory.path().join("sessions.toml"));
    assert_eq!(code, Some(0), "{text}");
    let keys = format!("keys ok: 1 from {}, fetched at 20", provider.url("/keys"));
    assert!(text.contains(&keys) && text.contains("the provider lets them be kept for 2h"), "{text}");
    assert!(text.contains("signature ok: by the key \"first\", one of: \"first\" (ES256)"), "{text}");
    drop(server);

    let untrusted = ProviderServer::start(&settings);
    let _ada = untrusted.expect(&key.token("ada"), TRY_AGAIN);
    let line = untrusted.logged("cannot fetch the keys of tokens: until they come, clients are refused with 1013");
    assert!(line.contains("UnknownIssuer") || line.contains("no certificate authorities"), "{line}");
    let config = untrusted.directory.path().join("sessions.toml");
    let (code, text) = check_token(&key.token("ada"), &config);
    assert!(code == Some(1) && text.contains(&format!("cannot get the keys of {}", provider.url("/keys"))), "{text}");
}

#[test]
fn issuer_is_discovered() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let (provider, ca) = tls_provider(directory.path());
    let key = Signer::es256("first");
    provider.set("/somewhere/else", Answer::json(key_set(&[&key])));
    let configuration = |issuer: &str, keys: &str| {
        let configuration = json!({"issuer": issuer, "jwks_uri": keys, "scopes_supported": ["openid"]});
        Answer::json(configuration.to_string())
    };
    let (well_known, keys) = ("/realms/chess/.well-known/openid-configuration", provider.url("/somewhere/else"));
    let settings = |issuer: &str| {
        format!("jwt_algorithm = \"ES256\"\njwt_discovery = true\njwt_issuer = \"{issuer}\"\njwt_key_set_ca = {ca:?}\n")
    };
    // With and without a slash at its end, which is no part of the path of the configuration.
    for issuer in ["/realms/chess", "/realms/chess/"].map(|path| provider.url(path)) {
        provider.set(well_known, configuration(&issuer, &keys));
        let server = ProviderServer::start(&settings(&issuer));
        let header = Header { kid: Some("first".into()), ..Header::new(Algorithm::ES256) };
        let token = |issuer: &str| {
            let claims = json!({"sub": "ada", "exp": 1e300, "iss": issuer});
            jsonwebtoken::encode(&header, &claims, &key.key).unwrap()
        };
        let _ada = server.expect(&token(&issuer), ACCEPTED);
        let _eve = server.expect(&token("https://evil.example"), "Token is from another issuer");
        let (code, text) = check_token(&token(&issuer), &server.directory.path().join("sessions.toml"));
        let found = format!("keys ok: 1 from {keys}, where {} says, fetched at", provider.url(well_known));
        assert!(code == Some(0) && text.contains(&found), "{text}");
    }
    let issuer = provider.url("/realms/chess");
    for (answer, message) in [
        (configuration(&provider.url("/realms/chess/"), &keys), "it is the configuration of the issuer"),
        (configuration(&issuer, "http://127.0.0.1:1/keys"), "the issuer has https, and it has not"),
        (configuration(&issuer, "http://idp.example/keys"), "keys must come over https"),
        (Answer::json("{}"), "it is not the configuration of an OpenID provider"),
    ] {
        provider.set(well_known, answer);
        let server = ProviderServer::start(&settings(&issuer));
        let _ada = server.expect(&key.token("ada"), TRY_AGAIN);
        let line = server.logged("cannot fetch the keys of tokens");
        assert!(line.contains(message) && line.contains(well_known), "{line}");
    }
}

/// The provider publishes the new key, signs with it at once, and withdraws the old one. Nobody touches the server.
#[test]
fn provider_changes_its_algorithm_and_no_client_is_refused() {
    let provider = TestProvider::start();
    let (old, new) = (Signer::rs256("2024"), Signer::es256("2025"));
    provider.set("/keys", Answer::json(key_set(&[&old])));
    let server = ProviderServer::start(&keys_at(&provider.url("/keys")));
    let mut session = server.expect(&old.token("ada"), ACCEPTED);

    let (is_over, signer) = (AtomicBool::new(false), Mutex::new(&old));
    thread::scope(|scope| {
        let client = || {
            let mut accepted = 0;
            while !is_over.load(Ordering::Relaxed) {
                let token = signer.lock().unwrap().token("eve");
                drop(server.expect(&token, ACCEPTED));
                accepted += 1;
            }
            accepted
        };
        let clients = [scope.spawn(client), scope.spawn(client)];
        thread::sleep(Duration::from_millis(300));
        provider.set("/keys", Answer::json(key_set(&[&new, &old])));
        *signer.lock().unwrap() = &new;
        eventually("the new key is fetched", || provider.requests("/keys") == 2);
        thread::sleep(Duration::from_millis(300));
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 1);
        }
    });

    // A withdrawn key counts no longer from the next refresh on. The session that it has signed in goes on.
    let _both = server.expect(&old.token("bob"), ACCEPTED);
    provider.set("/keys", Answer::json(key_set(&[&new])));
    send_signal(server.process.id(), Signal::HUP);
    eventually("the old key is withdrawn", || server.answer(&old.token("bob")).0.contains(UNKNOWN_KEY));
    session.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    assert!(matches!(session.read(), Received::Text(answer) if answer.contains(r#""connections":1"#)));
}

/// Each makes the server ask the provider, if it may. Meanwhile others sign in.
#[test]
fn random_keys_neither_flood_the_provider_nor_hold_up_others() {
    let provider = TestProvider::start();
    let (key, other) = (Signer::es256("first"), Signer::es256("unknown"));
    provider.set("/keys", Answer::json(key_set(&[&key])));
    let server = ProviderServer::start(&keys_at(&provider.url("/keys")));
    let _ada = server.expect(&key.token("ada"), ACCEPTED);

    let (started, is_over) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        for attacker in 0..20 {
            let (is_over, server, other) = (&is_over, &server, &other);
            scope.spawn(move || {
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let (answer, _peer) = server.answer(&other.token_with_id("eve", &format!("{attacker}-{number}")));
                    assert!(answer.contains(UNKNOWN_KEY) || answer.contains(TRY_AGAIN), "{answer}");
                    number += 1;
                }
            });
        }
        eventually("the attackers have caused a burst", || provider.requests("/keys") >= 4);
        // They go on for a while, and hold up nobody.
        while started.elapsed() < Duration::from_secs(8) {
            drop(server.expect(&key.token("bob"), ACCEPTED));
        }
        // Nor do those who wait for an answer that does not come.
        provider.set("/keys", Answer::Silence);
        for _ in 0..50 {
            drop(server.expect(&key.token("bob"), ACCEPTED));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let most = 4 + usize::try_from(started.elapsed().as_secs() / 10).unwrap() + 1;
    assert!(provider.requests("/keys") <= most, "{} in {:?}", provider.requests("/keys"), started.elapsed());
}

#[test]
fn sighup_fetches_from_a_new_url_or_changes_nothing() {
    let provider = TestProvider::start();
    let (first, second) = (Signer::es256("first"), Signer::es256("second"));
    provider.set("/first", Answer::json(key_set(&[&first])));
    provider.set("/second", Answer::json(key_set(&[&second])));
    let server = ProviderServer::start(&keys_at(&provider.url("/first")));
    let _ada = server.expect(&first.token("ada"), ACCEPTED);

    server.reload(&keys_at(&provider.url("/missing")));
    let line = server.logged("cannot get the keys of");
    assert!(line.contains("/missing: it answers 404 Not Found"), "{line}");
    server.logged("the configuration is not reloaded, nothing has changed");
    let _ada = server.expect(&first.token("ada"), ACCEPTED);

    server.reload(&keys_at(&provider.url("/second")));
    server.logged("the configuration is reloaded");
    // At once: they were fetched before the reload took effect.
    let _ada = server.expect(&second.token("ada"), ACCEPTED);
    let _eve = server.expect(&first.token("ada"), UNKNOWN_KEY);

    // From a URL to a file.
    let file = server.directory.path().join("keys.json");
    fs::write(&file, key_set(&[&first])).unwrap();
    server.reload(&format!("jwt_algorithm = \"ES256\"\njwt_key_set_file = {file:?}\n"));
    eventually("the file counts", || server.answer(&first.token("ada")).0.contains(ACCEPTED));
    let before = provider.requests("/second");
    let _eve = server.expect(&second.token("ada"), UNKNOWN_KEY);
    assert_eq!(provider.requests("/second"), before, "nobody asks it any more");
}
