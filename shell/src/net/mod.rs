//! The path of a connection: TCP, PROXY header, TLS, HTTP, WebSocket.

pub(crate) mod close;
pub mod connection_limiter;
pub mod hosts;
pub mod listen_address;
pub mod listener;
pub mod message_socket;
pub mod origins;
pub(crate) mod plain_response;
pub mod proxy_protocol;
pub mod settings;
pub mod stream;
pub mod tls;
pub mod transport;
pub mod trusted_proxies;
pub mod upgrade;
pub mod websocket;
pub mod yielding;
