//! What the client's unit tests share.

pub(crate) mod fake_server;
pub(crate) mod test_ca;
