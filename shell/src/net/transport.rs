//! What comes before the first byte of HTTP: a header of the PROXY protocol, and TLS.

use std::net::IpAddr;
use std::sync::Arc;

use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use http::StatusCode;
use smol::net::TcpStream;

use crate::net::close::close_after_response;
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::plain_response::{limit_exceeded_response, plain_response};
use crate::net::proxy_protocol;
use crate::net::settings::ConnectionSettings;
use crate::net::stream::Stream;
use crate::net::yielding::YieldingStream;

/// A connection on which HTTP begins.
pub(crate) struct Transport {
    pub(crate) stream: YieldingStream<Stream>,
    /// Who is at its other end, or the last proxy before them.
    pub(crate) peer: IpAddr,
}

/// Opens a connection from `peer`. `None` when it has come to its end.
pub(crate) async fn establish(
    mut stream: TcpStream,
    peer: IpAddr,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
) -> Option<Transport> {
    let peer =
        if settings.proxy_protocol { read_proxy_header(&mut stream, peer, settings, permit).await? } else { peer };
    let stream = match &settings.tls {
        None => Stream::Plain(stream),
        Some(config) => Stream::Tls(Box::new(encrypt(stream, config, peer).await?)),
    };
    Some(Transport { stream: YieldingStream::new(stream), peer })
}

/// Who is at the other end. A proxy that is trusted has to say so first.
async fn read_proxy_header(
    stream: &mut TcpStream,
    peer: IpAddr,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
) -> Option<IpAddr> {
    /// What such a header begins with, and neither HTTP nor TLS does.
    const FIRST: u8 = b'\r';

    let mut first = [0];
    // An end, or an error, is found again by whoever reads next.
    if !matches!(stream.peek(&mut first).await, Ok(1)) || first != [FIRST] {
        if !settings.trusted_proxies.is_trusted(peer) {
            return Some(peer);
        }
        // It would be for its client to say who it is.
        tracing::debug!(%peer, "a trusted proxy sends no header of the PROXY protocol");
        close_after_response(
            stream,
            &plain_response(StatusCode::BAD_REQUEST, "The header of the PROXY protocol is missing", None),
        )
        .await;
        return None;
    }
    let source = match proxy_protocol::read_header(stream).await {
        Ok(source) => source,
        Err(error) => {
            tracing::debug!(%peer, %error, "not a header of the PROXY protocol");
            close_after_response(
                stream,
                &plain_response(StatusCode::BAD_REQUEST, "That is no header of the PROXY protocol, version 2", None),
            )
            .await;
            return None;
        }
    };
    // What others say about themselves does not count.
    let Some(source) = source.map(|source| source.ip()).filter(|_| settings.trusted_proxies.is_trusted(peer)) else {
        return Some(peer);
    };
    // It may be a proxy again, which has yet to say for whom it asks.
    if !settings.trusted_proxies.is_trusted(source)
        && let Err(exceeded) = permit.identify(source)
    {
        if settings.tls.is_none() {
            close_after_response(stream, &limit_exceeded_response(exceeded)).await;
        }
        return None;
    }
    Some(source)
}

async fn encrypt(
    mut stream: TcpStream,
    config: &Arc<ServerConfig>,
    peer: IpAddr,
) -> Option<futures_rustls::server::TlsStream<TcpStream>> {
    /// The type of the record that every handshake begins with (RFC 8446 §5.1).
    const HANDSHAKE: u8 = 22;

    let mut first = [0];
    if matches!(stream.peek(&mut first).await, Ok(1)) && first != [HANDSHAKE] {
        close_after_response(
            &mut stream,
            &plain_response(StatusCode::BAD_REQUEST, "This port speaks TLS: use wss:// or https://", None),
        )
        .await;
        return None;
    }
    match TlsAcceptor::from(Arc::clone(config)).accept(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            None
        }
    }
}
