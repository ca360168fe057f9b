//! An honest client that signs in 20 times a second, each time on a connection of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_rustls::pki_types::ServerName;
use futures_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::attack::text;
use crate::server::TargetServer;

/// Signs in.
pub(crate) struct Probe {
    from: IpAddr,
    target: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    /// The token, if the server wants one.
    credential: Option<String>,
}

/// How long the sign-ins took, from when they were due until the grant, sorted. Or, as long, an operator's commands.
pub(crate) struct Times {
    pub(crate) took: Vec<Duration>,
    pub(crate) failed: usize,
    /// Why one of them failed.
    pub(crate) failure: Option<String>,
}

impl Times {
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the list")]
        let at = (self.took.len() as f64 * quantile) as usize;
        self.took.get(at.min(self.took.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

impl Probe {
    const INTERVAL: Duration = Duration::from_millis(50);
    /// A sign-in that takes longer has failed.
    const TIMEOUT: Duration = Duration::from_secs(10);

    pub(crate) fn new(server: &TargetServer, from: IpAddr) -> Result<Self> {
        Ok(Self { from, target: server.address(), tls: server.client_config()?, credential: server.good_credential()? })
    }

    /// Signs in at every tick, also if earlier sign-ins are still under way.
    pub(crate) fn sign_in_for(&self, duration: Duration) -> Result<Times> {
        measure(duration, Self::INTERVAL, |tick, due| {
            // Sessions of slow sign-ins overlap, so each is of a user of its own.
            let user = format!("probe-{tick}");
            self.sign_in(self.credential.as_deref().unwrap_or(&user)).map(|mut session| {
                let took = due.elapsed();
                drop(session.write_all(&text(r#"{"type":"BYE"}"#)));
                // The server closes after BYE_SUCCESS.
                drop(session.read_to_end(&mut Vec::new()));
                took
            })
        })
    }

    /// Holds sessions of the user `full`.
    pub(crate) fn hold(&self, sessions: usize) -> Result<Vec<impl Sized>> {
        (0..sessions).map(|_| self.sign_in("full").context("a session that is to be held")).collect()
    }

    fn sign_in(&self, credential: &str) -> Result<Box<dyn Stream>> {
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(self.from, 0).into())?;
        socket.connect_timeout(&self.target.into(), Self::TIMEOUT)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Self::TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
                Box::new(StreamOwned::new(connection, stream))
            }
        };
        stream.write_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        read_until(&mut stream, b"message from server\"}")?;
        stream.write_all(&text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{credential}"}}"#)))?;
        read_until(&mut stream, b"AUTHENTICATE_SUCCESS")?;
        Ok(stream)
    }
}

/// Does something at every tick, also if earlier ticks are still under way. It gets the number of its tick and when it is due,
/// and returns how long it took.
pub(crate) fn measure(
    duration: Duration,
    interval: Duration,
    act: impl Fn(u32, Instant) -> Result<Duration> + Sync,
) -> Result<Times> {
    let begin = Instant::now();
    let ticks = u32::try_from(duration.as_millis() / interval.as_millis())?;
    let act = &act;
    let results: Vec<_> = thread::scope(|scope| {
        let acts: Vec<_> = (0..ticks)
            .map(|tick| {
                let due = begin + interval * tick;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                scope.spawn(move || act(tick, due))
            })
            .collect();
        acts.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let (mut took, mut failure) = (Vec::new(), None);
    for result in results {
        match result.unwrap_or_else(|_| Err(anyhow::anyhow!("the probe panicked"))) {
            Ok(time) => took.push(time),
            Err(error) => failure = Some(format!("{error:#}")),
        }
    }
    took.sort_unstable();
    Ok(Times { failed: ticks as usize - took.len(), took, failure })
}

/// Reads until these bytes have come.
fn read_until(stream: &mut impl Read, wanted: &[u8]) -> Result<()> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while !read.windows(wanted.len()).any(|window| window == wanted) {
        match stream.read(&mut buffer)? {
            0 => bail!("the server closed: {:?}", String::from_utf8_lossy(&read)),
            bytes => read.extend(&buffer[..bytes]),
        }
    }
    Ok(())
}
