//! The path of a connection, in the order of its bytes: TCP, PROXY header, TLS, HTTP, WebSocket.

pub mod listen_address;
pub mod listener;
pub(crate) mod acceptor;
pub(crate) mod tcp;
pub mod connection_limiter;
pub mod settings;
pub mod peer;
pub(crate) mod transport;
pub mod proxy_protocol;
pub mod tls;
mod tls_handshake;
pub(crate) mod stream;
pub(crate) mod yielding;
mod delegate_write;
pub(crate) mod held;
pub(crate) mod frame_counter;
pub mod upgrade;
pub mod trusted_proxies;
pub mod forwarded;
pub mod hosts;
pub mod origins;
pub mod paths;
pub mod subprotocols;
pub(crate) mod plain_response;
pub(crate) mod close;
pub mod message_socket;
pub(crate) mod websocket;
