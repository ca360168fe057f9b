//! The part of a connection before HTTP: the header of the PROXY protocol, and TLS.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use smol::net::TcpStream;

use crate::net::close::close_after_response;
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::plain_response::PlainResponse;
use crate::net::proxy_protocol;
use crate::net::settings::ConnectionSettings;
use crate::net::stream::{MeteredStream, Stream};
use crate::net::tls_handshake::accept_tls;
use crate::net::yielding::YieldingStream;
use crate::runtime::events::log_event;
use crate::runtime::fair_turns::FairTurns;

/// A connection that is ready for HTTP.
pub(crate) struct Transport {
    pub(crate) stream: YieldingStream<Stream>,
    /// The client, or the last proxy before it.
    pub(crate) peer: IpAddr,
}

/// Reads the PROXY header and does the TLS handshake, if the settings ask for them. `None` if the connection is
/// over; the client then has its response, if it could read one.
pub(crate) async fn establish(
    mut stream: TcpStream,
    peer: IpAddr,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
    turns: &Arc<FairTurns>,
) -> Option<Transport> {
    let peer =
        if settings.proxy_protocol { read_proxy_header(&mut stream, peer, settings, permit).await? } else { peer };
    let stream = match &settings.tls {
        None => Stream::Plain(MeteredStream::new(stream)),
        Some(config) => Stream::Tls(Box::new(accept_tls(stream, config, peer, turns).await?)),
    };
    Some(Transport { stream: YieldingStream::new(stream), peer })
}

/// The address of the peer. A trusted proxy must send the PROXY header, which names its client.
async fn read_proxy_header(
    stream: &mut TcpStream,
    peer: IpAddr,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
) -> Option<IpAddr> {
    /// The first byte of a PROXY header. Neither HTTP nor TLS begins with it.
    const FIRST_BYTE: u8 = b'\r';

    let mut first = [0];
    // If the stream has ended or failed, the next read finds it out again.
    if !matches!(stream.peek(&mut first).await, Ok(1)) || first != [FIRST_BYTE] {
        if !settings.trusted_proxies.is_trusted(peer) {
            return Some(peer);
        }
        // Without the header, its client could choose an address by itself in X-Forwarded-For.
        log_event!(proxy_header_missing { client_address: display(peer) });
        respond_bad_request(stream, "The header of the PROXY protocol is missing").await;
        return None;
    }
    let source = match proxy_protocol::read_header(stream).await {
        Ok(source) => source,
        Err(error) => {
            log_event!(proxy_header_invalid { client_address: display(peer), error: display(&error) });
            respond_bad_request(stream, "That is no header of the PROXY protocol, version 2").await;
            return None;
        }
    };
    // The header of an untrusted peer is read, but does not count.
    let Some(source) = source.map(|source| source.ip()).filter(|_| settings.trusted_proxies.is_trusted(peer)) else {
        return Some(peer);
    };
    // The source may be another trusted proxy, which names its client in X-Forwarded-For.
    if !settings.trusted_proxies.is_trusted(source)
        && let Err(exceeded) = permit.identify(source)
    {
        if settings.tls.is_none() {
            close_after_response(stream, &PlainResponse::limit_exceeded(exceeded).to_bytes()).await;
        }
        return None;
    }
    Some(source)
}

async fn respond_bad_request(stream: &mut TcpStream, message: &'static str) {
    close_after_response(stream, &PlainResponse::new(StatusCode::BAD_REQUEST, message).to_bytes()).await;
}
