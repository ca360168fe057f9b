//! One accepted connection: TLS and the upgrade first, then its session, until the socket is closed.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use session_core::Timestamp;
use session_core::session::{Event, SessionSettings};
use smol::future::FutureExt as _;

use crate::net::connection_limiter::ConnectionPermit;
use crate::net::peer::Peer;
use crate::net::settings::ConnectionSettings;
use crate::net::tcp::TcpSocket;
use crate::net::transport::{self, Transport};
use crate::net::upgrade::{UpgradeOutcome, serve_request};
use crate::net::websocket::WebSocket;
use crate::runtime::clock::Clock;
use crate::runtime::events::log_event;
use crate::runtime::fair_turns::FairTurns;
use crate::server::connection::{Connection, ConnectionContext};
use crate::server::mailbox::{Mailbox, Notification};
use crate::server::registry::Registration;

/// A connection that was accepted and has a permit.
pub(super) struct AcceptedConnection {
    pub(super) stream: TcpSocket,
    pub(super) peer: Peer,
    pub(super) settings: Arc<ConnectionSettings>,
    pub(super) permit: ConnectionPermit,
    /// When the connection was accepted. Its time to authenticate began then.
    pub(super) accepted: Timestamp,
}

/// A connection that speaks WebSocket, and the settings of its session.
pub(super) struct UpgradedConnection {
    socket: WebSocket,
    session_settings: SessionSettings,
    permit: ConnectionPermit,
    accepted: Timestamp,
    is_v1: bool,
}

/// Runs one connection from its first byte to its last. A panic ends only this connection.
///
/// `upgrade` is boxed and dropped before the session begins. It is larger than the rest of the connection, and a future
/// reserves memory for everything it ever holds.
pub(super) async fn run_connection(
    upgrade: Pin<Box<impl Future<Output = Option<UpgradedConnection>>>>,
    context: Arc<ConnectionContext>,
    registration: Registration,
) {
    let id = registration.id();
    let connection = AssertUnwindSafe(run_upgraded(upgrade, &context, &registration));
    if futures_util::FutureExt::catch_unwind(connection).await.is_err() {
        // The panic has dropped the connection's SlotGuard, which has released the slot.
        log_event!(connection_panicked { session: display(id) });
    }
}

async fn run_upgraded(
    upgrade: Pin<Box<impl Future<Output = Option<UpgradedConnection>>>>,
    context: &Arc<ConnectionContext>,
    registration: &Registration,
) {
    let Some(UpgradedConnection { socket, session_settings, permit, accepted, is_v1 }) = upgrade.await else { return };
    if let Some(address) = permit.address() {
        registration.mailbox().set_client_address(address);
    }
    let greeting = if is_v1 { Event::ConnectedV1 } else { Event::Connected };
    Connection::new(registration, socket, &session_settings, accepted, Arc::clone(context), permit).run(greeting).await;
}

/// Establishes the transport and serves the HTTP request. `None` if the connection is over, at once if the server drains.
pub(super) async fn upgrade(
    connection: AcceptedConnection,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    turns: Arc<FairTurns>,
) -> Option<UpgradedConnection> {
    let AcceptedConnection { stream, mut peer, settings, mut permit, accepted } = connection;
    if peer.local.ip().is_unspecified() {
        // The listener has every address of this machine. The socket has one.
        peer.local = stream.local_addr().ok()?;
    }
    let timeout = || clock.wait_until(accepted + settings.header_timeout);
    let handshake = async {
        let transport = transport::establish(stream, peer, &settings, &mut permit, &turns);
        let transport = transport.or(async {
            timeout().await;
            None
        });
        let Transport { stream, peer } = transport.await?;
        Some(serve_request(stream, peer, &settings, &mut permit, timeout()).await)
    };
    let drained = poll_fn(|cx| {
        mailbox.poll(cx).map(|notification| match notification {
            Notification::Draining | Notification::Cut => None,
            Notification::Stored(_) | Notification::Ended(_) | Notification::Hinted(_) => {
                unreachable!("no command was submitted yet")
            }
        })
    });
    match handshake.or(drained).await? {
        UpgradeOutcome::Upgraded { stream, read, response, is_v1 } => {
            let socket = WebSocket::new(stream, read, response, &settings, clock.clone());
            Some(UpgradedConnection { socket, session_settings: settings.session, permit, accepted, is_v1 })
        }
        UpgradeOutcome::Answered => None,
    }
}
