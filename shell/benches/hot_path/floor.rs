//! The floor: a minimal server on the same libraries. It sends HELLO, a grant and BYE_SUCCESS, without sessions, a store
//! or checks.

use std::sync::Arc;

use anyhow::Result;
use async_tungstenite::accept_async_with_config;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use futures_rustls::TlsAcceptor;
use futures_util::{SinkExt as _, StreamExt as _};
use shell::net::listen_address::ListenAddress;
use shell::net::listener::listen;
use shell::net::tls::CertificateFiles;
use shell::runtime::supervisor::Supervisor;
use shell::runtime::threads::on_threads;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;
use smol::{Async, Executor};

const HELLO: &str = r#"{"type":"HELLO","payload":"message from server"}"#;
const GRANT: &str = r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"user-00000000","connections":1}}"#;
const GOODBYE: &str = r#"{"type":"BYE_SUCCESS","payload":null}"#;

/// Serves until the process is killed, with TLS if there are files for it. The first line on standard output shows the
/// address.
pub(crate) fn serve(threads: u16, tls: Option<&CertificateFiles>) -> Result<()> {
    let tls = tls.map(|files| files.load().map(TlsAcceptor::from)).transpose()?;
    let listener =
        listen(&["127.0.0.1:0".parse::<ListenAddress>().map_err(anyhow::Error::msg)?], Some(32 * 1024))?.remove(0);
    println!("listening on ws://{}", listener.local_addr()?);
    let listener = Async::new(listener)?;
    let executor = Arc::new(Executor::new());
    on_threads(threads, &executor, &Supervisor::default(), async {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                executor.spawn(run_connection(TcpStream::from(stream), tls.clone())).detach();
            }
        }
    })
}

async fn run_connection(stream: TcpStream, tls: Option<TlsAcceptor>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let _lost = match tls {
        None => respond(stream).await,
        // Boxed because it is large, and connections without TLS should not have its size.
        Some(tls) => Box::pin(async { respond(tls.accept(stream).await?).await }).await,
    };
}

async fn respond(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(4096);
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    socket.send(Message::text(HELLO)).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) if text.starts_with(r#"{"type":"AUTHENTICATE""#) => {
                socket.send(Message::text(GRANT)).await?;
            }
            Message::Text(_) => {
                socket.feed(Message::text(GOODBYE)).await?;
                let close = CloseFrame { code: CloseCode::Normal, reason: "Goodbye".into() };
                socket.send(Message::Close(Some(close))).await?;
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
    Ok(())
}
