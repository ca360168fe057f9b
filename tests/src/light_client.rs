//! A WebSocket client that never blocks, so that one thread can run many.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::raw_client::{Received, frame_head, read_frame, upgrade_request};

/// A connection to a server.
pub struct LightClient {
    stream: Arc<TcpStream>,
    /// What was read and is no whole frame yet.
    bytes: Vec<u8>,
    has_upgraded: bool,
    has_ended: bool,
}

impl LightClient {
    /// Connects, and asks for a WebSocket.
    ///
    /// # Errors
    /// If the server does not accept.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut client = Self { stream: Arc::new(stream), bytes: vec![], has_upgraded: false, has_ended: false };
        client.write(upgrade_request("").as_bytes());
        Ok(client)
    }

    /// All that has come since the last call. The end comes once.
    pub fn receive(&mut self) -> Vec<Received> {
        let mut received = vec![];
        if self.has_ended {
            return received;
        }
        let end = self.read_all();
        if !self.has_upgraded
            && let Some(length) = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n")
        {
            self.has_upgraded = self.bytes.starts_with(b"HTTP/1.1 101 ");
            self.has_ended = !self.has_upgraded;
            self.bytes.drain(..length + 4);
        }
        if self.has_upgraded {
            let mut rest = &*self.bytes;
            let mut read = 0;
            // The only error of a slice is that it ends before the frame does.
            while let Ok(frame) = read_frame(&mut rest) {
                received.push(frame);
                read = self.bytes.len() - rest.len();
            }
            self.bytes.drain(..read);
        }
        if self.has_ended || end.is_some() {
            self.has_ended = true;
            received.push(end.unwrap_or(Received::End));
        }
        received
    }

    /// Reads what is there. The end, if it is there.
    fn read_all(&mut self) -> Option<Received> {
        let mut bytes = [0; 4096];
        loop {
            match (&*self.stream).read(&mut bytes) {
                Ok(0) => return Some(Received::End),
                Ok(read) => self.bytes.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(Received::Reset),
            }
        }
    }

    /// Its socket, to wait for something to read. `None` once that has ended.
    #[must_use]
    pub fn socket(&self) -> Option<Arc<TcpStream>> {
        (!self.has_ended).then(|| Arc::clone(&self.stream))
    }

    /// Sends a text message. False if the connection has ended.
    pub fn text(&mut self, text: &str) -> bool {
        self.frame(0x81, text.as_bytes())
    }

    /// Sends a frame with this first byte, masked with zeros. False if the connection has ended.
    pub fn frame(&mut self, first: u8, payload: &[u8]) -> bool {
        let mut bytes = frame_head(first, payload.len());
        bytes.extend_from_slice(payload);
        self.write(&bytes)
    }

    /// The little that a client sends fits into the buffer of its socket.
    fn write(&mut self, bytes: &[u8]) -> bool {
        (&*self.stream).write_all(bytes).is_ok()
    }
}

impl Drop for LightClient {
    /// At once, although somebody may wait for the socket.
    fn drop(&mut self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }
}
