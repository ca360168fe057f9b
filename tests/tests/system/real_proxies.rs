//! nginx, haproxy, Caddy and Traefik in front of the real server, with the configurations of `docs/proxies`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tests::programs::{in_repository, is_installed, is_present};
use tests::raw_client::{ByteStream, RawClient, Received, upgrade_request};
use tests::test_ca::TestCa;
use tests::test_process::TestProcess;
use tests::waiting::{eventually, side_by_side};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// The client is not at the address of the proxy, which is 127.0.0.1.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

/// A proxy of others, and the file that configures it.
#[derive(Clone, Copy)]
pub(crate) enum Proxy {
    Nginx,
    /// Serves the page of the browser's tests as well.
    NginxWithPage,
    Haproxy,
    /// With version 1 or 2 of the PROXY protocol.
    HaproxyTcp(&'static str),
    Caddy,
    Traefik,
}

impl Proxy {
    const fn program(self) -> &'static str {
        match self {
            Self::Nginx | Self::NginxWithPage => "nginx",
            Self::Haproxy | Self::HaproxyTcp(_) => "haproxy",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Nginx | Self::NginxWithPage => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::HaproxyTcp(_) => "haproxy-tcp.cfg",
            Self::Caddy => "Caddyfile",
            Self::Traefik => "traefik.yml",
        }
    }

    pub(crate) fn is_installed(self) -> bool {
        let mut command = Command::new(self.program());
        match self {
            Self::Nginx | Self::NginxWithPage | Self::Haproxy | Self::HaproxyTcp(_) => {
                is_installed(self.program(), command.arg("-v"))
            }
            Self::Caddy => is_installed(self.program(), command.arg("version")),
            Self::Traefik => is_present(self.program(), command.arg("version")),
        }
    }

    /// Whether the server speaks TLS with the client, and not the proxy.
    const fn passes_tls_on(self) -> bool {
        matches!(self, Self::HaproxyTcp(_))
    }

    /// Writes the configuration, with the names, ports, files and times of this test, and returns its path.
    fn configure(self, directory: &Path, port: u16, server: SocketAddr) -> PathBuf {
        let path = |name: &str| directory.join(name).display().to_string();
        let mut file = ConfigurationFile::read(self.file());
        match self {
            Self::Nginx | Self::NginxWithPage => {
                file.replace("listen 443", &format!("listen 127.0.0.1:{port}"));
                file.replace("sessions.example.com;", "localhost;");
                // Only root may write to the usual places.
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let temporary = temporary.map(|what| format!("{what}_temp_path {};", path(what))).concat();
                file.replace("http {", &format!("pid {};\nhttp {{ access_log off; {temporary}", path("pid")));
                if matches!(self, Self::Nginx) {
                    file.replace("60s", "3s");
                } else {
                    let pages = in_repository("tests/tests/system/browser").display().to_string();
                    file.replace("location / {", &format!("location = /page.html {{ root {pages}; }} location / {{"));
                }
            }
            Self::Haproxy => {
                file.replace("bind :443", &format!("bind 127.0.0.1:{port}"));
                file.replace("60s", "3s");
            }
            Self::HaproxyTcp(send_proxy) => {
                file.replace("bind :443", &format!("bind 127.0.0.1:{port}"));
                file.replace("60s", "3s");
                file.replace("send-proxy-v2", send_proxy);
            }
            Self::Caddy => {
                let global = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n";
                file.replace("sessions.example.com:443 {", &format!("{global}localhost:{port} {{\n\tbind 127.0.0.1"));
            }
            Self::Traefik => {
                file.replace(":443", &format!("127.0.0.1:{port}"));
                file.replace("60s", "3s");
                let mut routes = ConfigurationFile::read("traefik-routes.yml");
                routes.replace("`sessions.example.com`", "`localhost`");
                routes.replace("127.0.0.1:3000", &server.to_string());
                routes.write(directory);
                return file.write(directory);
            }
        }
        file.replace("127.0.0.1:3000", &server.to_string());
        file.write(directory)
    }

    fn start(self, directory: &Path, configuration: &Path) -> RunningProxy {
        let mut command = Command::new(self.program());
        match self {
            Self::Nginx | Self::NginxWithPage => {
                command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(directory).arg("-c")
            }
            Self::Traefik => command.arg("--configFile"),
            Self::Haproxy | Self::HaproxyTcp(_) => command.args(["-db", "-f"]),
            Self::Caddy => command.env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory).args([
                "run",
                "--adapter",
                "caddyfile",
                "--config",
            ]),
        };
        command.arg(configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        RunningProxy(command.spawn().unwrap())
    }
}

/// The process of a proxy. Ends when this is dropped.
struct RunningProxy(Child);

impl RunningProxy {
    fn expect_alive(&mut self) {
        if let Some(status) = self.0.try_wait().unwrap() {
            let mut errors = String::new();
            self.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("the proxy has ended, {status}: {errors}");
        }
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        // With SIGKILL the workers of nginx would go on. The proxy may have ended by itself.
        let id = rustix::process::Pid::from_child(&self.0);
        let _ended = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        drop(self.0.wait());
    }
}

/// A file of `docs/proxies`, as a test changes it.
struct ConfigurationFile {
    name: &'static str,
    text: String,
}

impl ConfigurationFile {
    fn read(name: &'static str) -> Self {
        Self { name, text: fs::read_to_string(in_repository("docs/proxies").join(name)).unwrap() }
    }

    fn replace(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "{} has no {from:?}", self.name);
        self.text = self.text.replace(from, to);
    }

    fn write(self, directory: &Path) -> PathBuf {
        let path = directory.join(self.name);
        let directory = format!("{}/", directory.display());
        fs::write(&path, self.text.replace("/etc/sessions/", &directory)).unwrap();
        path
    }
}

/// A server behind a proxy. Both end when this is dropped.
pub(crate) struct ProxiedServer {
    _proxy: RunningProxy,
    pub(crate) address: SocketAddr,
    directory: tempfile::TempDir,
    ca: PathBuf,
    _server: TestProcess,
}

impl ProxiedServer {
    /// Starts both. The proxy closes a connection after three seconds of silence, if its configuration has such a time.
    pub(crate) fn start(proxy: Proxy, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = TestCa::new(directory.path());
        let files = ca.certify("certificate", &["localhost"]);
        let path = |name: &str| directory.path().join(name);
        fs::rename(&files.key, path("key.pem")).unwrap();
        let both = [files.certificate, path("key.pem")].map(|file| fs::read_to_string(file).unwrap()).concat();
        fs::write(path("certificate-and-key.pem"), both).unwrap();

        let (certificate, key) = (path("certificate.pem"), path("key.pem"));
        let tls = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap(), "--proxy-protocol"];
        let mut all = vec!["--trusted-proxies", "127.0.0.1", "--allowed-hosts", "localhost"];
        all.extend(arguments);
        all.extend(if proxy.passes_tls_on() { &tls[..] } else { &[] });
        let server = TestProcess::start(SERVER, &path("data"), &all);

        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let configuration = proxy.configure(directory.path(), port, server.address);
        let mut running = proxy.start(directory.path(), &configuration);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("the proxy serves", || {
            running.expect_alive();
            TcpStream::connect(address).is_ok() && is_healthy(&ca.ca, address)
        });
        Self { _proxy: running, address, directory, ca: ca.ca, _server: server }
    }

    /// The status of a handshake with this origin, and the connection.
    fn handshake(&self, origin: &str) -> (String, RawClient) {
        let mut client = RawClient::connect_tls(CLIENT, self.address, |stream| encrypt(&self.ca, stream));
        let host = format!("Host: localhost:{}\r\nOrigin: {origin}\r\n", self.address.port());
        client.write(upgrade_request(&host).as_bytes());
        let head = client.try_head();
        (head.get(9..12).unwrap_or_else(|| panic!("no answer but {head:?}")).to_owned(), client)
    }

    /// A client that has signed in.
    fn sign_in(&self, user: &str) -> RawClient {
        let (status, mut client) = self.handshake(&format!("https://localhost:{}", self.address.port()));
        assert_eq!(status, "101");
        client.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
        client.authenticate(user);
        client
            .expect_text(&format!(r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"{user}","connections":1}}}}"#));
        client
    }

    /// What the operator learns of this user.
    fn explain(&self, user: &str) -> String {
        let mut command = Command::new(SERVER);
        command.args(["explain", user, "--json", "--data"]).arg(self.directory.path().join("data"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

/// Whether the server answers a health check through the proxy.
fn is_healthy(ca: &Path, address: SocketAddr) -> bool {
    let mut client = RawClient::connect_tls(CLIENT, address, |stream| encrypt(ca, stream));
    client.write(format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", address.port()).as_bytes());
    client.try_head().starts_with("HTTP/1.1 200 ")
}

fn encrypt(ca: &Path, stream: TcpStream) -> Box<dyn ByteStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    Box::new(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream))
}

/// Everything that must hold behind every proxy.
fn check(proxy: Proxy) {
    if !proxy.is_installed() {
        return;
    }
    let server = ProxiedServer::start(proxy, &["--ping-interval", "300ms", "--pong-timeout", "20s"]);
    // The client is known by its own address, and the page by its own origin.
    let mut ada = server.sign_in("ada");
    let explained = server.explain("ada");
    assert!(explained.contains("127.0.0.77"), "{explained}");
    let other = server.address.port() - 1;
    for refused in [
        format!("http://localhost:{}", server.address.port()),
        format!("https://localhost:{other}"),
        format!("https://127.0.0.1:{}", server.address.port()),
        "https://evil.example".to_owned(),
    ] {
        assert_eq!(server.handshake(&refused).0, "403", "{refused}");
    }
    // Fourteen pings take more than the three seconds of silence after which the proxy would close.
    for _ in 0..14 {
        assert_eq!(ada.read(), Received::Ping);
        ada.pong();
    }
    ada.send_bye();
}

/// A proxy closes a connection that is silent for longer than its timeout: `ping_interval` is too long for it.
fn check_timeout(proxy: Proxy) {
    if !proxy.is_installed() {
        return;
    }
    let server = ProxiedServer::start(proxy, &["--ping-interval", "1h"]);
    server.sign_in("ada").wait_for_end();
    // The server noticed it, too.
    eventually("the slot is free", || !server.explain("ada").contains("127.0.0.77"));
}

/// A proxy without a timeout for WebSockets lets a silent connection be.
fn check_patience(proxy: Proxy) {
    if !proxy.is_installed() {
        return;
    }
    let server = ProxiedServer::start(proxy, &["--ping-interval", "1h"]);
    let mut ada = server.sign_in("ada");
    assert!(ada.is_silent_for(Duration::from_secs(4)));
    ada.send_bye();
}

/// Both at the same time: they mostly wait.
fn check_both(proxy: Proxy, other: impl FnOnce(Proxy) + Send) {
    thread::scope(|scope| {
        scope.spawn(|| other(proxy));
        check(proxy);
    });
}

#[test]
fn nginx_serves_clients_that_answer_pings() {
    check_both(Proxy::Nginx, check_timeout);
}

#[test]
fn haproxy_serves_clients_that_answer_pings() {
    check_both(Proxy::Haproxy, check_timeout);
}

#[test]
fn haproxy_names_clients_by_proxy_protocol() {
    side_by_side(["send-proxy", "send-proxy-v2"], |version| check_both(Proxy::HaproxyTcp(version), check_timeout));
}

#[test]
fn caddy_serves_clients() {
    check_both(Proxy::Caddy, check_patience);
}

#[test]
fn traefik_serves_clients() {
    check_both(Proxy::Traefik, check_patience);
}

/// The page must show what these tests run.
#[test]
fn page_links_every_configuration() {
    let page = fs::read_to_string(in_repository("docs/proxies.md")).unwrap();
    for file in fs::read_dir(in_repository("docs/proxies")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(page.contains(&format!("](proxies/{name})")), "docs/proxies.md does not link {name}");
        let proxies = [Proxy::Nginx, Proxy::Haproxy, Proxy::HaproxyTcp(""), Proxy::Caddy, Proxy::Traefik];
        let is_run = proxies.iter().any(|proxy| proxy.file() == name) || name == "traefik-routes.yml";
        assert!(is_run, "no test runs {name}");
    }
}
