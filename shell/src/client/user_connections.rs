//! The connections of one user.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use session_core::DisplayName;
use session_core::protocol::AuthenticateOptions;

use super::{Connection, Credentials, Error, Event, Options, Token, Url};

/// One user of one server with any number of connections, the latest last.
///
/// Dropping it closes every socket without a BYE.
#[derive(Debug)]
pub struct UserConnections {
    url: Url,
    credentials: Credentials,
    options: Options,
    /// `None`: plain AUTHENTICATE.
    authenticate_options: Option<AuthenticateOptions>,
    connections: Vec<Connection>,
}

impl UserConnections {
    /// A user without connections. The server decides whether the id is valid.
    #[must_use]
    pub fn new(url: &Url, id: &str) -> Self {
        Self::with_credentials(url, Credentials::User(id.into()))
    }

    /// The user that the token names, without connections. The server decides whether the token is valid.
    #[must_use]
    pub fn with_token(url: &Url, token: Token) -> Self {
        Self::with_credentials(url, Credentials::Token(token))
    }

    fn with_credentials(url: &Url, credentials: Credentials) -> Self {
        Self {
            url: url.clone(),
            credentials,
            options: Options::default(),
            authenticate_options: None,
            connections: Vec::new(),
        }
    }

    /// Sets the timeouts and trusted authorities.
    #[must_use]
    pub fn with_options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// Sets the device. From then on the client authenticates with an object.
    #[must_use]
    pub fn with_device(self, device: DisplayName) -> Self {
        let authenticate_options =
            AuthenticateOptions { device: Some(device), ..self.authenticate_options.unwrap_or_default() };
        Self { authenticate_options: Some(authenticate_options), ..self }
    }

    /// Sets the label. From then on the client authenticates with an object.
    #[must_use]
    pub fn with_label(self, label: DisplayName) -> Self {
        let authenticate_options =
            AuthenticateOptions { label: Some(label), ..self.authenticate_options.unwrap_or_default() };
        Self { authenticate_options: Some(authenticate_options), ..self }
    }

    /// Sets how long a new connection waits in line if no slot is free. From then on the client authenticates with an object.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> Self {
        let authenticate_options =
            AuthenticateOptions { wait: Some(wait), ..self.authenticate_options.unwrap_or_default() };
        Self { authenticate_options: Some(authenticate_options), ..self }
    }

    /// Opens one more connection and authenticates it. Returns the user with the slots held.
    ///
    /// # Errors
    /// [`Error::Denied`] if the user or the device has reached the limit; otherwise as [`Connection::open_with`] and
    /// [`Connection::authenticate`]. No connection is added then.
    pub async fn connect(&mut self) -> Result<session_core::protocol::UserSummary, Error> {
        let mut connection = Connection::open_with(&self.url, &self.options).await?;
        let user = match &self.authenticate_options {
            None => connection.authenticate_with(&self.credentials).await?,
            Some(authenticate_options) => connection
                .authenticate_with_options(&self.credentials, authenticate_options.clone())
                .await?
                .user()
                .clone(),
        };
        self.connections.push(connection);
        Ok(user)
    }

    /// Sends BYE on the latest connection and waits until the server has closed it.
    ///
    /// # Errors
    /// [`Error::NotConnected`] if there is none; otherwise as [`Connection::bye`]. The connection is removed in any
    /// case.
    pub async fn disconnect(&mut self) -> Result<(), Error> {
        let connection = self.connections.pop().ok_or_else(|| self.not_connected())?;
        connection.bye().await
    }

    /// Closes the socket of the latest connection without a BYE, as a crash would. Returns whether there was one.
    pub fn drop_latest(&mut self) -> bool {
        self.connections.pop().is_some()
    }

    /// The number of open connections. The server may have closed some of them since the last event.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The latest connection.
    #[must_use]
    pub fn latest(&mut self) -> Option<&mut Connection> {
        self.connections.last_mut()
    }

    /// Waits without a timeout for the next event on any connection, and answers pings on all of them meanwhile. A
    /// connection that has ended is removed.
    ///
    /// Cancel safe: dropping the future loses no event.
    ///
    /// # Errors
    /// [`Error::Lost`] if a connection broke, and [`Error::NotConnected`] if there is none.
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        let mut waiting: FuturesUnordered<_> = (self.connections.iter_mut().enumerate())
            .map(|(at, connection)| async move { (at, connection.next_event().await) })
            .collect();
        let next = waiting.next().await;
        drop(waiting);
        let Some((at, event)) = next else { return Err(self.not_connected()) };
        if matches!(event, Ok(Event::Closed { .. }) | Err(_)) {
            drop(self.connections.remove(at));
        }
        event
    }

    fn not_connected(&self) -> Error {
        Error::NotConnected { user: self.credentials.user().map(Into::into) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::fake_server::{FakeServer, with_server};
    use session_core::UserId;
    use session_core::protocol::{ClientMessage, Credential, ServerMessage};

    #[test]
    fn user_connects_up_to_the_limit() {
        with_server(async |listener: FakeServer| {
            let mut ada = UserConnections::new(&listener.url(), "ada");
            let client = async {
                assert_eq!(ada.connect().await.expect("the first").connections, 1);
                assert_eq!(ada.connect().await.expect("the second").connections, 2);
                assert!(matches!(ada.connect().await, Err(Error::Denied { .. })));
                assert_eq!(ada.connections(), 2);
                ada.disconnect().await.expect("a good bye");
                assert_eq!(ada.connect().await.expect("again").connections, 2);
                let latest = ada.latest().expect("a connection");
                assert_eq!(latest.check_connections().await.expect("an answer").connections, 2);
                assert!(ada.drop_latest() && ada.drop_latest() && !ada.drop_latest());
                assert!(matches!(ada.disconnect().await, Err(Error::NotConnected { .. })));
            };
            smol::future::or(client, listener.serve(2)).await;
        });
    }

    #[test]
    fn token_decides_the_user() {
        with_server(async |listener: FakeServer| {
            let token = "aa.bb.cc".parse().expect("a good token");
            let mut user = UserConnections::with_token(&listener.url(), token);
            let client = async {
                assert_eq!(user.connect().await.expect("a slot").id.as_str(), "ada");
                user.disconnect().await.expect("a good bye");
                let error = user.disconnect().await.expect_err("none is left");
                assert_eq!(error.to_string(), "the holder of the token holds no connection; connect first");
            };
            let server = async {
                let mut connection = listener.accept().await;
                connection.send(&ServerMessage::Hello).await;
                assert_eq!(connection.receive().await, Some(ClientMessage::Authenticate(Credential::new("aa.bb.cc"))));
                let ada = session_core::protocol::UserSummary {
                    id: UserId::parse("ada").expect("a good id"),
                    connections: 1,
                };
                connection.send(&ServerMessage::AuthenticateSuccess(ada)).await;
                assert_eq!(connection.receive().await, Some(ClientMessage::Bye));
                connection.send(&ServerMessage::ByeSuccess).await;
                connection.close(1000, "Goodbye").await;
                assert_eq!(connection.receive().await, None);
                drop(connection);
                std::future::pending().await
            };
            smol::future::or(client, server).await;
        });
    }

    #[test]
    fn user_with_a_wait_asks_to_wait() {
        with_server(async |listener: FakeServer| {
            let wait = Duration::from_secs(60);
            let mut ada = UserConnections::new(&listener.url(), "ada").with_wait(wait);
            let server = async {
                let mut connection = listener.accept().await;
                connection.send(&ServerMessage::Hello).await;
                let authenticate_options = AuthenticateOptions { wait: Some(wait), ..AuthenticateOptions::default() };
                let request =
                    ClientMessage::AuthenticateWith(Credential::User("ada".into()), Box::new(authenticate_options));
                assert_eq!(connection.receive().await, Some(request));
            };
            let (connected, ()) = smol::future::zip(ada.connect(), server).await;
            assert!(matches!(connected, Err(Error::Lost(_))), "{connected:?}");
        });
    }

    #[test]
    fn closed_connection_is_removed_after_its_event() {
        with_server(async |listener: FakeServer| {
            let mut ada = UserConnections::new(&listener.url(), "ada");
            let client = async {
                ada.connect().await.expect("the first");
                ada.connect().await.expect("the second");
                let first = ada.connections.first_mut().expect("a connection");
                first.send_text(r#"{"type":"BYE"}"#).await.expect("an open connection");
                assert_eq!(ada.next_event().await.ok(), Some(Event::Reply(ServerMessage::ByeSuccess)));
                assert!(matches!(ada.next_event().await, Ok(Event::Closed { code: 1000, .. })));
                assert_eq!(ada.connections(), 1);
            };
            smol::future::or(client, listener.serve(2)).await;
        });
    }
}
