//! The TLS handshake of one connection.
//!
//! A handshake costs a client nothing and a server up to milliseconds. So each step of it waits for a turn of the client, and
//! is computed on another thread.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_rustls::rustls::ServerConfig;
use futures_util::task::AtomicWaker;
use http::StatusCode;

use crate::net::close::close_after_response;
use crate::net::plain_response::PlainResponse;
use crate::net::stream::MeteredStream;
use crate::net::tcp::TcpSocket;
use crate::net::tls_stream::TlsStream;
use crate::runtime::events::log_event;
use crate::runtime::fair_turns::FairTurns;

/// Accepts TLS. `None` if the handshake failed or the peer is gone. A peer that does not speak TLS is told so.
pub(super) async fn accept_tls(
    mut stream: TcpSocket,
    config: &Arc<ServerConfig>,
    peer: IpAddr,
    turns: &Arc<FairTurns>,
) -> Option<Box<TlsStream<MeteredStream<TcpSocket>>>> {
    /// The type of the first record of every TLS handshake (RFC 8446 §5.1).
    const HANDSHAKE: u8 = 22;

    let mut first = [0];
    if matches!(stream.peek(&mut first).await, Ok(1)) && first != [HANDSHAKE] {
        let response = PlainResponse::new(StatusCode::BAD_REQUEST, "This port speaks TLS: use wss:// or https://");
        close_after_response(&mut stream, &response.to_bytes()).await;
        return None;
    }
    let log_failure = |error: &dyn Display| {
        log_event!(tls_failed { client_address: display(peer), error: display(error) });
    };
    // Boxed, because it moves to another thread and back.
    let mut handshake = match TlsStream::new(MeteredStream::new(stream), config) {
        Ok(handshake) => Box::new(handshake),
        Err(error) => {
            log_failure(&error);
            return None;
        }
    };
    let readiness = Arc::<Readiness>::default();
    loop {
        let turn = turns.turn(peer.into()).await;
        if handshake.get_ref().get_ref().is_ended_by_peer() {
            log_event!(tls_abandoned { client_address: display(peer) });
            return None;
        }
        let waker = Waker::from(Arc::clone(&readiness));
        let step = turn.run(move || {
            let step = handshake.poll_handshake(&mut Context::from_waker(&waker));
            (handshake, step)
        });
        match step.await {
            (unfinished, Poll::Pending) => handshake = unfinished,
            (stream, Poll::Ready(Ok(()))) => return Some(stream),
            (_, Poll::Ready(Err(error))) => {
                log_failure(&error);
                return None;
            }
        }
        readiness.wait().await;
    }
}

/// Whether the socket may be ready for the next step of a handshake.
///
/// Each step is polled on another thread, so the waker of the connection's task must not be the handshake's: the task waits for
/// its turn first.
#[derive(Debug, Default)]
struct Readiness {
    is_ready: AtomicBool,
    task: AtomicWaker,
}

impl Readiness {
    async fn wait(&self) {
        std::future::poll_fn(|cx| {
            self.task.register(cx.waker());
            if self.is_ready.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Wake for Readiness {
    fn wake(self: Arc<Self>) {
        self.is_ready.store(true, Ordering::Release);
        self.task.wake();
    }
}
