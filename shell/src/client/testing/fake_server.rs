//! A server for the client's tests: scripted with [`FakeConnection`], or a minimal real one with [`FakeServer::serve`].

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use async_tungstenite::tungstenite::Bytes;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use async_tungstenite::{WebSocketStream, accept_async};
use futures_rustls::TlsAcceptor;
use futures_util::StreamExt as _;
use session_core::UserId;
use session_core::protocol::{AuthenticateFailure, ClientMessage, Credential, ServerMessage, UserSummary};
use smol::LocalExecutor;
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use smol::net::{TcpListener, TcpStream};

use crate::client::Url;

/// Runs a test with a server on a free port, and fails after 20 s.
pub(crate) fn with_server(test: impl AsyncFnOnce(FakeServer)) {
    let late = async {
        smol::Timer::after(Duration::from_secs(20)).await;
        panic!("the test takes too long");
    };
    smol::block_on(smol::future::or(async { test(FakeServer::bind().await).await }, late));
}

pub(crate) struct FakeServer {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl FakeServer {
    async fn bind() -> Self {
        Self { socket: TcpListener::bind("127.0.0.1:0").await.expect("a free port"), tls: None }
    }

    /// The same server with TLS.
    pub(crate) fn with_tls(self, tls: TlsAcceptor) -> Self {
        Self { tls: Some(tls), ..self }
    }

    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().expect("an address").port()
    }

    pub(crate) fn url(&self) -> Url {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://127.0.0.1:{}", self.port()).parse().expect("a good URL")
    }

    pub(crate) async fn accept(&self) -> FakeConnection {
        FakeConnection(accept_async(self.accept_stream().await.expect("TLS")).await.expect("a handshake"))
    }

    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        let (stream, _) = self.socket.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        stream
    }

    /// `None` if the TLS handshake fails.
    pub(crate) async fn accept_stream(&self) -> Option<Box<dyn Stream>> {
        let stream = self.accept_tcp().await;
        match &self.tls {
            Some(tls) => Some(Box::new(tls.accept(stream).await.ok()?)),
            None => Some(Box::new(stream)),
        }
    }

    /// Answers one request with these pieces, which are likely to arrive one by one.
    pub(crate) async fn answer(&self, pieces: &[&str]) {
        let mut stream = self.accept_stream().await.expect("TLS");
        let mut request = [0; 1024];
        let _: usize = stream.read(&mut request).await.expect("a request");
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.expect("a reader");
            stream.flush().await.expect("a reader");
            smol::Timer::after(Duration::from_millis(5)).await;
        }
        drop(stream.close().await);
    }

    /// Serves without end, with one limit for all users together.
    pub(crate) async fn serve<T>(&self, limit: u32) -> T {
        let held = Rc::new(Cell::new(0));
        let sessions = LocalExecutor::new();
        let accepting = async {
            loop {
                let connection = self.accept().await;
                sessions.spawn(connection.serve(held.clone(), limit)).detach();
            }
        };
        sessions.run(accepting).await
    }
}

/// The server's end of one connection.
pub(crate) struct FakeConnection(WebSocketStream<Box<dyn Stream>>);

impl FakeConnection {
    pub(crate) async fn send(&mut self, reply: &ServerMessage) {
        self.send_text(&reply.encode()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("a reader");
    }

    /// The next request. `None` when the client has closed.
    pub(crate) async fn receive(&mut self) -> Option<ClientMessage> {
        self.receive_text().await.map(|text| ClientMessage::parse(&text).expect("a good request"))
    }

    pub(crate) async fn receive_text(&mut self) -> Option<String> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Some(text.to_string()),
            _ => None,
        }
    }

    /// Pings and waits for the pong.
    pub(crate) async fn ping(&mut self) {
        self.0.send(Message::Ping(Bytes::new())).await.expect("a reader");
        assert!(matches!(self.0.next().await, Some(Ok(Message::Pong(_)))));
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.0.send(Message::Close(Some(frame))).await.expect("a reader");
    }

    async fn serve(mut self, held: Rc<Cell<u32>>, limit: u32) {
        let mut user = None;
        self.send(&ServerMessage::Hello).await;
        while let Some(request) = self.receive().await {
            let known = |id: &UserId| UserSummary { id: id.clone(), connections: held.get() };
            let reply = match request {
                ClientMessage::Ping => ServerMessage::Pong,
                ClientMessage::Authenticate(_) if held.get() >= limit => {
                    ServerMessage::AuthenticateFailure(AuthenticateFailure::LimitReached)
                }
                ClientMessage::Authenticate(credential) => {
                    held.set(held.get() + 1);
                    ServerMessage::AuthenticateSuccess(known(user.insert(parse(&credential))))
                }
                ClientMessage::CheckConnections => {
                    ServerMessage::CheckConnectionsSuccess(known(user.as_ref().expect("an authenticated session")))
                }
                ClientMessage::Bye => break,
                ClientMessage::AuthenticateWith(..) | ClientMessage::ListSessions(_) | ClientMessage::EndSession(_) => {
                    unreachable!("what is served here is the plain protocol")
                }
            };
            self.send(&reply).await;
        }
        held.set(held.get() - u32::from(user.is_some()));
        drop(self.0.send(Message::text(ServerMessage::ByeSuccess.encode())).await);
        drop(self.0.send(Message::Close(Some(CloseFrame { code: 1000.into(), reason: "Goodbye".into() }))).await);
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

fn parse(credential: &Credential) -> UserId {
    UserId::parse(credential.user().expect("a text")).expect("a good id")
}
