use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use futures_rustls::pki_types::PrivateKeyDer;
use futures_rustls::rustls::server::WebPkiClientVerifier;
use futures_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

fn config(url: &str) -> RedisConfig {
    RedisConfig::new(RedisPlace::Server(url.parse().unwrap()), AdmissionPolicy::default())
}

fn info(config: &RedisConfig) -> Result<ConnectionInfo, RedisConfigError> {
    let RedisPlace::Server(url) = &config.place else { panic!("these have one server") };
    config.connection_info(url)
}

#[test]
fn user_and_password_come_from_their_own_settings() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let settings = RedisConfig {
        user: Some("ada".into()),
        password: Some(RedisPassword::File(file.clone())),
        ..config("redis://localhost/3")
    };
    assert!(matches!(info(&settings), Err(RedisConfigError::Password(_))));
    for password in ["hunter2", "hunter3"] {
        fs::write(&file, format!("{password}\n")).unwrap();
        let info = info(&settings).unwrap();
        let redis = info.redis_settings();
        assert_eq!((redis.username(), redis.password(), redis.db()), (Some("ada"), Some(password), 3));
        assert!(info.tcp_settings().nodelay());
    }
    let given = RedisConfig { password: Some(RedisPassword::Given(b"hunter2".into())), ..config("unix:///run/redis") };
    assert_eq!(info(&given).unwrap().redis_settings().password(), Some("hunter2"));
    assert!(!format!("{given:?}{settings:?}").contains("hunter2"));
    let in_url = config("redis://ada:hunter2@localhost");
    assert_eq!(info(&in_url).unwrap().redis_settings().password(), Some("hunter2"));
    assert!(!format!("{in_url:?}").contains("hunter2"), "{in_url:?}");
}

#[test]
fn unusable_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pem");
    let ca = || RedisConfig { ca: Some(path.clone()), ..config("rediss://localhost") };
    let message = |config: RedisConfig| info(&config).unwrap_err().to_string();
    assert!(message(ca()).starts_with(&format!("cannot read {}: ", path.display())));
    fs::write(&path, "nothing").unwrap();
    assert_eq!(message(ca()), format!("{} has no certificate in PEM (-----BEGIN CERTIFICATE-----)", path.display()));
    let both = RedisConfig { certificate: Some((path.clone(), path)), ..config("rediss://localhost") };
    assert!(message(both).starts_with("the certificates for the store cannot be used: "));
}

/// A server with TLS that asks for a certificate of `authority` and answers all that a client says at the start. Returns what
/// it was told.
fn serve_once(listener: TcpListener, authority: &CertifiedIssuer<'static, KeyPair>) -> thread::JoinHandle<String> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
        let mut told = String::new();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]);
            // Each command is an array (RESP2).
            let commands = text.lines().filter(|line| line.starts_with('*')).count();
            told.push_str(&text);
            stream.write_all("+OK\r\n".repeat(commands).as_bytes()).unwrap();
            stream.flush().unwrap();
        }
        told
    })
}

#[test]
fn tls_presents_and_checks_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["client".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let ca = Some(file("ca", authority.pem()));
    let certificate = Some((file("certificate", own.pem()), file("key", key.serialize_pem())));

    let connect = |ca: Option<PathBuf>, certificate: Option<(PathBuf, PathBuf)>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("rediss://ada:hunter2@localhost:{}", listener.local_addr().unwrap().port());
        let server = serve_once(listener, &authority);
        let info = info(&RedisConfig { ca, certificate, ..config(&url) }).unwrap();
        let connected = Client::open(info).unwrap().get_connection_with_timeout(Duration::from_secs(10)).map(drop);
        (connected, server.join().unwrap())
    };
    let (connected, told) = connect(ca.clone(), certificate.clone());
    assert!(connected.is_ok() && told.contains("hunter2"), "{connected:?} {told}");
    // Neither a server of another authority nor a client without a certificate gets through.
    for (ca, certificate) in [(None, certificate), (ca, None)] {
        let (connected, told) = connect(ca, certificate);
        assert!(connected.is_err() && !told.contains("hunter2"), "{connected:?} {told}");
    }
}
