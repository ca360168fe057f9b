//! The part of a connection before HTTP: the header of the PROXY protocol, and TLS.

use std::sync::Arc;

use http::StatusCode;

use crate::net::close::close_after_response;
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::peer::Peer;
use crate::net::plain_response::PlainResponse;
use crate::net::proxy_protocol::{self, PREFIX_BYTES};
use crate::net::settings::ConnectionSettings;
use crate::net::stream::{MeteredStream, Stream};
use crate::net::tcp::TcpSocket;
use crate::net::tls_handshake::accept_tls;
use crate::net::yielding::YieldingStream;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};
use crate::runtime::fair_turns::FairTurns;

/// Of what proxies do wrong.
static LOG: LogRateLimiter = LogRateLimiter::new();

/// A connection that is ready for HTTP.
pub(crate) struct Transport {
    pub(crate) stream: YieldingStream<Stream>,
    pub(crate) peer: Peer,
}

/// Reads the PROXY header and does the TLS handshake, if the settings ask for them. `None` if the connection is
/// over; the client then has its response, if it could read one.
pub(crate) async fn establish(
    mut stream: TcpSocket,
    peer: Peer,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
    turns: &Arc<FairTurns>,
) -> Option<Transport> {
    let peer =
        if settings.proxy_protocol { read_proxy_header(&mut stream, peer, settings, permit).await? } else { peer };
    let stream = match &settings.tls {
        None => Stream::Plain(MeteredStream::new(stream)),
        Some(config) => {
            refuse_unexpected_proxy_header(&mut stream, &peer, settings).await?;
            Stream::Tls(accept_tls(stream, config, peer.address, turns).await?)
        }
    };
    Some(Transport { stream: YieldingStream::new(stream), peer })
}

/// The peer, with the address of the client that its PROXY header names. A trusted proxy must send one.
async fn read_proxy_header(
    stream: &mut TcpSocket,
    peer: Peer,
    settings: &ConnectionSettings,
    permit: &mut ConnectionPermit,
) -> Option<Peer> {
    let (address, proxies) = (peer.socket, &settings.trusted_proxies);
    let is_trusted = proxies.is_trusted(address);
    let mut first = [0; PREFIX_BYTES];
    // A check whether the port is open ends without a byte.
    let read = stream.peek(&mut first).await.ok().filter(|&read| read > 0)?;
    let first = &first[..read];
    if !proxy_protocol::begins_header(first) {
        if !is_trusted {
            return Some(peer);
        }
        // Without the header, its client could choose an address by itself in X-Forwarded-For.
        log_limited!(LOG, proxy_header_missing { client_address: display(address) });
        respond_bad_request(stream, "The header of the PROXY protocol is missing").await;
        return None;
    }
    let source = match proxy_protocol::read_header(stream).await {
        Ok(source) => source,
        Err(error) => {
            if is_trusted {
                log_limited!(LOG, proxy_header_invalid { client_address: display(address), error: display(&error) });
            } else {
                log_event!(client_proxy_header_invalid { client_address: display(address), error: display(&error) });
            }
            respond_bad_request(stream, "That is no header of the PROXY protocol, version 1 or 2").await;
            return None;
        }
    };
    if !is_trusted {
        // It is read, but does not count.
        log_limited!(LOG, proxy_header_ignored { client_address: display(address) });
        return Some(peer);
    }
    let Some(source) = source.map(|source| source.ip()) else { return Some(Peer { may_name_client: false, ..peer }) };
    // The source may be another trusted proxy, which names its client in a header of the request.
    if !proxies.is_trusted(source)
        && let Err(exceeded) = permit.identify(source)
    {
        if settings.tls.is_none() {
            close_after_response(stream, &PlainResponse::limit_exceeded(exceeded).to_bytes()).await;
        }
        return None;
    }
    Some(Peer { address: source, ..peer })
}

/// Where TLS is expected, a trusted proxy may send a PROXY header that was not asked for. `None` if it does.
async fn refuse_unexpected_proxy_header(
    stream: &mut TcpSocket,
    peer: &Peer,
    settings: &ConnectionSettings,
) -> Option<()> {
    if settings.proxy_protocol || !settings.trusted_proxies.is_trusted(peer.socket) {
        return Some(());
    }
    let mut first = [0; PREFIX_BYTES];
    let read = stream.peek(&mut first).await.unwrap_or_default();
    if !proxy_protocol::begins_header(&first[..read]) {
        return Some(());
    }
    log_unexpected_proxy_header(peer);
    respond_bad_request(stream, "A header of the PROXY protocol is not expected here").await;
    None
}

async fn respond_bad_request(stream: &mut TcpSocket, message: &'static str) {
    close_after_response(stream, &PlainResponse::new(StatusCode::BAD_REQUEST, message).to_bytes()).await;
}

/// Logs a trusted proxy that may send a PROXY header although `proxy_protocol` is off.
pub(super) fn log_unexpected_proxy_header(peer: &Peer) {
    log_limited!(LOG, proxy_header_unexpected { client_address: display(peer.socket) });
}
