//! A client that sends any bytes, and reads WebSocket frames as they come.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::waiting::TIMEOUT;

/// The head of a WebSocket handshake (RFC 6455 §4.1), without `Host` and without the empty line at its end.
pub const UPGRADE: &str = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A WebSocket handshake with additional headers, each with its line break. It has a `Host` in any case.
#[must_use]
pub fn upgrade_request(headers: &str) -> String {
    let host = if headers.contains("Host:") { "" } else { "Host: test\r\n" };
    format!("{UPGRADE}{host}{headers}\r\n")
}

/// Connects from this address of this machine.
///
/// # Errors
/// The error of the system call.
pub fn connect_from(from: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// A TCP connection on which a test sends any bytes.
pub struct RawClient {
    stream: TcpStream,
    /// What encrypts the bytes, if anything does.
    tls: Option<Box<dyn ByteStream>>,
}

/// A stream that can be read and written.
pub trait ByteStream: io::Read + io::Write + Send {}

impl<S: io::Read + io::Write + Send> ByteStream for S {}

/// A WebSocket frame from the server (RFC 6455 §5.2), or the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A ping.
    Ping,
    /// A pong with its data.
    Pong(Vec<u8>),
    /// A close frame.
    Close(u16, String),
    /// The end of the stream.
    End,
    /// The connection was reset. Frames that the server sent before may be lost.
    Reset,
}

impl RawClient {
    /// Connects.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::from_stream(TcpStream::connect(address).expect("the server accepts"))
    }

    /// Connects from this address of this machine, upgrades to WebSocket and reads HELLO.
    #[must_use]
    pub fn open_from(from: IpAddr, address: SocketAddr) -> Self {
        Self::from_stream(connect_from(from, address).expect("the server accepts")).after_hello()
    }

    fn from_stream(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, tls: None }
    }

    /// Connects from this address of this machine, over TLS that `encrypt` adds.
    ///
    /// # Panics
    /// If nobody listens.
    #[must_use]
    pub fn connect_tls(
        from: IpAddr,
        address: SocketAddr,
        encrypt: impl FnOnce(TcpStream) -> Box<dyn ByteStream>,
    ) -> Self {
        let client = Self::from_stream(connect_from(from, address).expect("the server accepts"));
        let tls = encrypt(client.stream.try_clone().expect("a socket can be shared"));
        Self { tls: Some(tls), ..client }
    }

    fn io(&mut self) -> &mut dyn ByteStream {
        match &mut self.tls {
            Some(tls) => &mut **tls,
            None => &mut self.stream,
        }
    }

    /// Connects, upgrades to WebSocket and reads HELLO.
    #[must_use]
    pub fn open(address: SocketAddr) -> Self {
        Self::connect(address).after_hello()
    }

    fn after_hello(mut self) -> Self {
        self.write(upgrade_request("").as_bytes());
        self.skip_head();
        self.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
        self
    }

    /// Reads the head of a response, which must have status 101.
    pub fn skip_head(&mut self) {
        let head = self.try_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Reads the head of a response, up to the end of the stream at most.
    pub fn try_head(&mut self) -> String {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && self.io().read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).into()
    }

    /// Whether the server sends nothing for this duration, and does not close.
    pub fn is_silent_for(&mut self, duration: Duration) -> bool {
        self.stream.set_read_timeout(Some(duration)).expect("a socket option");
        let received = self.io().read(&mut [0]).map_err(|error| error.kind());
        self.stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
        matches!(received, Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// As [`RawClient::open`], and authenticates. The server must answer with this number of connections.
    #[must_use]
    pub fn authenticated(address: SocketAddr, user: &str, connections: u32) -> Self {
        let mut raw = Self::open(address);
        raw.authenticate(user);
        raw.expect_text(&format!(
            r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"{user}","connections":{connections}}}}}"#
        ));
        raw
    }

    /// The address of this end.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// Makes the kernel buffer no more than about this many bytes that the server does not take.
    pub fn set_send_buffer(&self, bytes: usize) {
        socket2::SockRef::from(&self.stream).set_send_buffer_size(bytes).expect("a socket option");
    }

    /// Bounds what the kernel buffers of what this client has not read, as it is, whatever the kernel would make of it.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn set_receive_buffer(&self, bytes: usize) {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(bytes).expect("a socket option");
    }

    /// Sends AUTHENTICATE with this user.
    pub fn authenticate(&mut self, user: &str) {
        self.text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{user}"}}"#));
    }

    /// Sends bytes. Returns false if the server has closed: what it sent before can still be read.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.io().write_all(bytes).is_ok()
    }

    /// Sends as many of these bytes as there is room for, 0 if there is none within the write timeout. `None` if the
    /// connection is lost.
    pub fn write_some(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.io().write(bytes) {
            Ok(written) => Some(written),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Some(0),
            Err(_) => None,
        }
    }

    /// Sends a text message.
    pub fn text(&mut self, text: &str) -> bool {
        self.frame(0x81, text.as_bytes())
    }

    /// Sends a frame with this first byte, masked with zeros.
    pub fn frame(&mut self, first: u8, payload: &[u8]) -> bool {
        let mut bytes = frame_head(first, payload.len());
        bytes.extend_from_slice(payload);
        self.write(&bytes)
    }

    /// The next frame.
    pub fn read(&mut self) -> Received {
        self.try_read().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Received::End,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Received::Reset,
            _ => panic!("the server sends nothing: {error}"),
        })
    }

    /// The next frame, if it comes within this duration.
    pub fn read_within(&mut self, duration: Duration) -> Option<Received> {
        self.stream.set_read_timeout(Some(duration)).expect("a socket option");
        let mut byte = [0];
        let has_come = match self.stream.peek(&mut byte) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => false,
            Ok(_) | Err(_) => true,
        };
        self.stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
        has_come.then(|| self.read())
    }

    /// Reads one frame, which must be this text.
    pub fn expect_text(&mut self, text: &str) {
        assert_eq!(self.read(), Received::Text(text.into()));
    }

    /// Reads a close frame with this code, and then the end, which must not be a reset.
    pub fn expect_close(&mut self, code: u16) {
        match self.read() {
            Received::Close(sent, message) => assert_eq!(sent, code, "{message}"),
            other => panic!("expected a close with {code}, got {other:?}"),
        }
        assert_eq!(self.read(), Received::End);
    }

    /// Reads a close frame with this code and answers it. Then the server must end the connection.
    pub fn expect_goodbye(&mut self, code: u16) {
        match self.read() {
            Received::Close(sent, message) => assert_eq!(sent, code, "{message}"),
            other => panic!("expected a close with {code}, got {other:?}"),
        }
        self.frame(0x88, &code.to_be_bytes());
        assert_eq!(self.read(), Received::End);
    }

    /// Sends BYE and waits for its success. From then on the slot is free.
    pub fn send_bye(&mut self) {
        self.text(r#"{"type":"BYE"}"#);
        let mut received = self.read();
        while matches!(received, Received::Ping | Received::Pong(_)) {
            received = self.read();
        }
        assert!(
            matches!(&received, Received::Text(text) if text.starts_with(r#"{"type":"BYE_SUCCESS""#)),
            "expected BYE_SUCCESS, got {received:?}"
        );
    }

    /// Sends an unsolicited pong, which is a sign of life (RFC 6455 §5.5.3).
    pub fn pong(&mut self) {
        self.frame(0x8a, b"");
    }

    /// Sets the timeout for writes that the server does not read.
    pub fn set_write_timeout(&self, timeout: Duration) {
        self.stream.set_write_timeout(Some(timeout)).expect("a socket option");
    }

    /// Everything until the server closes.
    pub fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        self.io().read_to_end(&mut bytes).expect("the server closes, and does not reset");
        String::from_utf8(bytes).expect("the server speaks UTF-8")
    }

    /// Reads until the server closes, or resets the connection.
    pub fn wait_for_end(&mut self) {
        let end = self.io().read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        // TLS may end without a farewell.
        let is_end = matches!(end, Ok(_) | Err(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof));
        assert!(is_end, "{end:?}");
    }

    /// Shuts down the sending side.
    pub fn shut_down_writing(&mut self) {
        drop(self.stream.shutdown(std::net::Shutdown::Write));
    }

    fn try_read(&mut self) -> io::Result<Received> {
        read_frame(self.io())
    }
}

/// Reads one frame that a server sent.
///
/// # Errors
/// That of the stream. `UnexpectedEof` if it ends before the frame does.
pub fn read_frame(stream: &mut (impl io::Read + ?Sized)) -> io::Result<Received> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            usize::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            usize::try_from(u64::from_be_bytes(length)).expect("a frame fits into memory")
        }
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(match (head[0], &*payload) {
        (0x81, text) => Received::Text(String::from_utf8_lossy(text).into()),
        (0x88, [high, low, message @ ..]) => {
            Received::Close(u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(message).into())
        }
        (0x89, _) => Received::Ping,
        (0x8a, data) => Received::Pong(data.to_vec()),
        (first, _) => panic!("a server may not send a frame that begins with {first:#x}"),
    })
}

/// The head of a frame masked with zeros.
#[must_use]
pub fn frame_head(first: u8, length: usize) -> Vec<u8> {
    let mut head = vec![first];
    match u16::try_from(length) {
        Ok(short @ 0..126) => head.push(0x80 | u8::try_from(short).expect("below 126")),
        Ok(medium) => {
            head.push(0x80 | 126);
            head.extend(medium.to_be_bytes());
        }
        Err(_) => {
            head.push(0x80 | 127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head.extend([0; 4]);
    head
}
