//! One accepted connection: TLS and the upgrade first, then its session, until the socket is closed.

use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use session_core::Timestamp;
use session_core::session::SessionSettings;
use smol::future::FutureExt as _;
use smol::net::TcpStream;

use crate::net::connection_limiter::ConnectionPermit;
use crate::net::settings::ConnectionSettings;
use crate::net::transport::{self, Transport};
use crate::net::upgrade::{UpgradeOutcome, serve_request};
use crate::net::websocket::WebSocket;
use crate::runtime::clock::Clock;
use crate::server::connection::{Connection, ConnectionContext};
use crate::server::mailbox::{Mailbox, Notification};
use crate::server::registry::Registration;

/// A connection that has come in.
pub(super) struct AcceptedConnection {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) settings: Arc<ConnectionSettings>,
    pub(super) permit: ConnectionPermit,
    /// When its time to authenticate began.
    pub(super) accepted: Timestamp,
}

/// One that speaks WebSocket, and what the session is made with.
pub(super) struct UpgradedConnection {
    socket: WebSocket,
    limits: SessionSettings,
    permit: ConnectionPermit,
    accepted: Timestamp,
}

/// Serves one connection, from its first byte to its last. Whatever goes wrong in here stays in here.
///
/// All that comes before the first frame is in a box of its own, which is gone once it is over: it is larger than all that
/// follows, and a future keeps room for whatever it is ever given.
pub(super) async fn run_connection(
    upgrade: Pin<Box<impl Future<Output = Option<UpgradedConnection>>>>,
    context: Arc<ConnectionContext>,
    entry: Registration,
) {
    let id = entry.id();
    let connection = AssertUnwindSafe(run_upgraded(upgrade, &context, &entry));
    if futures_util::FutureExt::catch_unwind(connection).await.is_err() {
        // The claim gave the slot back when the panic dropped it.
        tracing::error!(session = %id, "a connection panicked; please report this");
    }
}

async fn run_upgraded(
    upgrade: Pin<Box<impl Future<Output = Option<UpgradedConnection>>>>,
    context: &Arc<ConnectionContext>,
    entry: &Registration,
) {
    let Some(UpgradedConnection { socket, limits, permit, accepted }) = upgrade.await else { return };
    if let Some(network) = permit.client() {
        entry.mailbox().set_client(network);
    }
    Connection::new(entry, socket, &limits, accepted, Arc::clone(context), permit).run().await;
}

/// The opening handshake, and what may come before it. Ends at once when the server drains.
pub(super) async fn upgrade(
    arrival: AcceptedConnection,
    clock: Clock,
    mailbox: Arc<Mailbox>,
) -> Option<UpgradedConnection> {
    let AcceptedConnection { stream, peer, settings, mut permit, accepted } = arrival;
    if stream.set_nodelay(true).is_err() {
        return None; // The peer is gone.
    }
    let late = || clock.wait_until(accepted + settings.header_timeout);
    let handshake = async {
        let opened = transport::establish(stream, peer, &settings, &mut permit);
        let opened = opened.or(async {
            late().await;
            None
        });
        let Transport { stream, peer } = opened.await?;
        Some(serve_request(stream, peer, &settings, &mut permit, late()).await)
    };
    let drained = poll_fn(|cx| {
        mailbox.poll(cx).map(|notification| match notification {
            Notification::Draining => None,
            Notification::Stored(_) | Notification::Ended(_) => unreachable!("nothing was asked of the store yet"),
        })
    });
    match handshake.or(drained).await? {
        UpgradeOutcome::Upgraded { stream, read } => {
            let socket = WebSocket::new(stream, read, &settings, clock.clone()).await;
            Some(UpgradedConnection { socket, limits: settings.session, permit, accepted })
        }
        UpgradeOutcome::Answered => None,
    }
}
