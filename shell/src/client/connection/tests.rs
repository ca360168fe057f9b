use super::*;
use crate::client::testing::fake_server::{FakeServer, with_server};
use session_core::UserId;
use session_core::protocol::{Credential, RequestError};

fn ada(connections: u32) -> UserSummary {
    UserSummary { id: UserId::parse("ada").expect("a good id"), connections }
}

#[test]
fn session_runs_from_hello_to_close() {
    with_server(async |listener: FakeServer| {
        let client = async {
            let mut connection = Connection::open(&listener.url()).await?;
            assert_eq!(connection.authenticate("ada").await?, ada(1));
            assert_eq!(connection.check_connections().await?, ada(2));
            connection.bye().await
        };
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            assert_eq!(connection.receive().await, Some(ClientMessage::Authenticate(Credential::new("ada"))));
            connection.send(&ServerMessage::AuthenticateSuccess(ada(1))).await;
            assert_eq!(connection.receive().await, Some(ClientMessage::CheckConnections));
            connection.send_text(r#"{"type":"NEWS","payload":"of a later version"}"#).await;
            connection.send(&ServerMessage::CheckConnectionsSuccess(ada(2))).await;
            assert_eq!(connection.receive().await, Some(ClientMessage::Bye));
            connection.send(&ServerMessage::ByeSuccess).await;
            connection.close(1000, "Goodbye").await;
            assert_eq!(connection.receive().await, None, "the close is answered");
        };
        let (ended, ()) = smol::future::zip(client, server).await;
        ended.expect("all went well");
    });
}

#[test]
fn connection_stays_usable_after_failures() {
    with_server(async |listener: FakeServer| {
        let client = async {
            let mut connection = Connection::open(&listener.url()).await.expect("a greeting");
            let error = connection.authenticate("ada").await.expect_err("the limit");
            let Error::Denied { user, is_device_full: false, details: None } = &error else { panic!("{error}") };
            assert_eq!(user.as_deref(), Some("ada"));
            let error = connection.authenticate("ada").await.expect_err("the limit of the device");
            assert!(matches!(&error, Error::Denied { is_device_full: true, details: None, .. }), "{error}");
            let error = connection.authenticate("").await.expect_err("no user");
            assert!(matches!(&error, Error::Refused { reason: AuthenticateFailure::StoreTimedOut, .. }), "{error}");
            let error = connection.check_connections().await.expect_err("not authenticated");
            assert!(matches!(error, Error::RequestFailed(RequestError::NotAuthenticated)), "{error}");
        };
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            for answer in [
                ServerMessage::AuthenticateFailure(AuthenticateFailure::LimitReached),
                ServerMessage::AuthenticateFailure(AuthenticateFailure::DeviceFull),
                ServerMessage::AuthenticateFailure(AuthenticateFailure::StoreTimedOut),
                ServerMessage::Error(RequestError::NotAuthenticated),
            ] {
                connection.receive().await;
                connection.send(&answer).await;
            }
        };
        smol::future::zip(client, server).await;
    });
}

#[test]
fn events_end_with_close_and_pings_are_answered() {
    with_server(async |listener: FakeServer| {
        let client = async {
            let mut connection = Connection::open(&listener.url()).await.expect("a greeting");
            connection.send_text("anything").await.expect("an open connection");
            assert_eq!(
                connection.next_event().await.ok(),
                Some(Event::Reply(ServerMessage::Error(RequestError::NotJson)))
            );
            assert_eq!(connection.next_event().await.ok(), Some(Event::Unknown("hm".into())));
            let closed = Event::Closed { code: 4408, reason: "Peer was silent for too long".into() };
            assert_eq!(connection.next_event().await.ok(), Some(closed));
            assert!(matches!(connection.next_event().await, Err(Error::Lost(_))));
        };
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            assert_eq!(connection.receive_text().await.as_deref(), Some("anything"));
            connection.send(&ServerMessage::Error(RequestError::NotJson)).await;
            connection.ping().await;
            connection.send_text("hm").await;
            connection.close(4408, "Peer was silent for too long").await;
        };
        smol::future::zip(client, server).await;
    });
}

#[test]
fn silent_server_times_out_and_gone_one_is_lost() {
    with_server(async |listener: FakeServer| {
        let hasty = Options { connect_timeout: Duration::from_millis(20), ..Options::default() };
        let error = Connection::open_with(&listener.url(), &hasty).await.expect_err("nobody accepts");
        assert!(matches!(error, Error::TimedOut { awaited: "WebSocket handshake", .. }), "{error}");
    });
    with_server(async |listener: FakeServer| {
        let url = listener.url();
        let server = async { drop(listener.accept().await) };
        let (opened, ()) = smol::future::zip(Connection::open(&url), server).await;
        assert!(matches!(opened, Err(Error::Lost(_))), "{opened:?}");
    });
}

#[test]
fn close_instead_of_hello_is_reported() {
    with_server(async |listener: FakeServer| {
        let url = listener.url();
        let server = async { listener.accept().await.close(1013, "Try again").await };
        let (opened, ()) = smol::future::zip(Connection::open(&url), server).await;
        assert!(matches!(opened, Err(Error::Closed { code: 1013, .. })), "{opened:?}");
    });
}

#[test]
fn token_is_sent_but_in_no_error() {
    with_server(async |listener: FakeServer| {
        let client = async {
            let mut connection = Connection::open(&listener.url()).await.expect("a greeting");
            let credentials = Credentials::Token("aa.secret.cc".parse().expect("a good token"));
            let error = connection.authenticate_with(&credentials).await.expect_err("the limit");
            assert!(matches!(error, Error::Denied { user: None, is_device_full: false, details: None }), "{error:?}");
            let error = connection.authenticate_with(&credentials).await.expect_err("a refusal");
            assert_eq!(error.to_string(), "the holder of the token was refused: Token has expired");
            assert_eq!(connection.authenticate_with(&credentials).await.expect("a slot"), ada(1));
            let error = connection.authenticate_with(&credentials).await.expect_err("a server that does not check");
            assert!(matches!(error, Error::TokenTakenForName) && !error.to_string().contains("secret"), "{error}");
            let ada = Credentials::User("ada".into());
            let error = connection.authenticate_with(&ada).await.expect_err("the limit");
            let Error::Denied { user, is_device_full: false, details: None } = &error else { panic!("{error}") };
            assert_eq!(user.as_deref(), Some("ada"));
        };
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            for answer in [
                ServerMessage::AuthenticateFailure(AuthenticateFailure::LimitReached),
                ServerMessage::AuthenticateFailure(AuthenticateFailure::Other("Token has expired".into())),
                ServerMessage::AuthenticateSuccess(ada(1)),
                ServerMessage::AuthenticateSuccess(UserSummary {
                    id: UserId::parse("aa.secret.cc").expect("an id"),
                    connections: 1,
                }),
            ] {
                assert_eq!(
                    connection.receive().await,
                    Some(ClientMessage::Authenticate(Credential::new("aa.secret.cc")))
                );
                connection.send(&answer).await;
            }
            assert_eq!(connection.receive().await, Some(ClientMessage::Authenticate(Credential::new("ada"))));
            connection.send(&ServerMessage::AuthenticateFailure(AuthenticateFailure::LimitReached)).await;
        };
        smol::future::zip(client, server).await;
    });
}

#[test]
fn closed_port_is_unreachable() {
    with_server(async |listener: FakeServer| {
        let url = listener.url();
        drop(listener);
        let opened = Connection::open(&url).await;
        assert!(matches!(opened, Err(Error::Unreachable { .. })), "{opened:?}");
    });
}
