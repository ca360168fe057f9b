use super::*;
use crate::client::testing::fake_server::{FakeServer, with_server};
use session_core::ledger::SlotLimit;
use session_core::protocol::{Credential, RequestError, StatusWord};
use session_core::{NodeId, UserId};

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

fn waiting(place: u16, wait: Duration, sessions: Option<&[SessionSummary]>) -> ServerMessage {
    ServerMessage::AuthenticateWaiting(Box::new(WaitingDetails {
        place,
        wait,
        limit: SlotLimit::default(),
        connections: 3,
        sessions: sessions.map(Into::into),
        retry_after: None,
        client_choice: false,
    }))
}

fn session(number: u64) -> SessionSummary {
    SessionSummary {
        id: NodeId::new(7).session(number),
        slot: None,
        is_own: false,
        device: None,
        label: None,
        since: 1_700_000_000_000,
        state: StatusWord::Live,
        until: None,
    }
}

fn in_line() -> AuthenticateOptions {
    AuthenticateOptions { wait: Some(Duration::from_secs(60)), ..AuthenticateOptions::default() }
}

#[test]
fn waiting_client_outlasts_the_reply_timeout() {
    with_server(async |listener: FakeServer| {
        let client = async {
            let options = Options { reply_timeout: Duration::from_secs(1), ..Options::default() };
            let mut connection = Connection::open_with(&listener.url(), &options).await.expect("a greeting");
            let credentials = Credentials::User("ada".into());
            let mut heard = Vec::new();
            let hear = |details: &WaitingDetails| heard.push((details.place, details.sessions.clone()));
            let error = connection.authenticate_in_line(&credentials, in_line(), hear).await.expect_err("a denial");
            let listed = Some([session(1)].into());
            assert_eq!(heard, [(2, listed.clone()), (1, listed.clone())]);
            let Error::Denied { details: Some(details), .. } = &error else { panic!("{error}") };
            assert_eq!(details.sessions, listed);
            let grant = connection.authenticate_with_options(&credentials, in_line()).await.expect("a slot");
            assert_eq!(grant.user(), &ada(1));
        };
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            let ada_in_line = ClientMessage::AuthenticateWith(Credential::User("ada".into()), Box::new(in_line()));
            assert_eq!(connection.receive().await, Some(ada_in_line));
            connection.send(&waiting(2, Duration::from_secs(60), Some(&[session(1)]))).await;
            // What the client is not told again is what it was told last.
            connection.send(&waiting(1, Duration::from_secs(60), None)).await;
            smol::Timer::after(Duration::from_millis(1500)).await;
            let failure = AuthenticateFailureDetails {
                connections: Some(3),
                ..AuthenticateFailureDetails::new(AuthenticateFailure::LimitReached)
            };
            connection.send(&ServerMessage::AuthenticateFailureDetailed(Box::new(failure))).await;
            connection.receive().await;
            connection.send(&waiting(1, Duration::from_secs(60), None)).await;
            connection.send(&ServerMessage::AuthenticateSuccess(ada(1))).await;
        };
        smol::future::zip(client, server).await;
    });
}

#[test]
fn silent_server_times_out_after_the_wait() {
    with_server(async |listener: FakeServer| {
        let client = async {
            let options = Options { reply_timeout: Duration::from_secs(1), ..Options::default() };
            let mut connection = Connection::open_with(&listener.url(), &options).await.expect("a greeting");
            let credentials = Credentials::User("ada".into());
            let error = connection.authenticate_with_options(&credentials, in_line()).await.expect_err("no answer");
            let after = Duration::from_millis(1010);
            assert!(matches!(error, Error::TimedOut { awaited: "answer to AUTHENTICATE", after: it } if it == after));
        };
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            connection.receive().await;
            // The last one counts.
            connection.send(&waiting(2, Duration::from_secs(60), None)).await;
            connection.send(&waiting(1, Duration::from_millis(10), None)).await;
            assert_eq!(connection.receive_text().await, None);
        };
        smol::future::zip(client, server).await;
    });
}

#[test]
fn change_before_an_answer_is_the_next_event() {
    with_server(async |listener: FakeServer| {
        let list = |connections| SessionList { limit: 3, connections, waiting: 0, sessions: [session(1)].into() };
        let changed = |connections| ServerMessage::SessionsChanged(Box::new(list(connections)));
        let client = async {
            let mut connection = Connection::open(&listener.url()).await.expect("a greeting");
            assert_eq!(connection.watch_sessions(true).await.expect("a list"), list(1));
            assert_eq!(connection.check_connections().await.expect("an answer"), ada(3));
            assert_eq!(connection.next_event().await.ok(), Some(Event::Reply(changed(3))));
            // A list that the client asked for is newer than a change before it.
            assert_eq!(connection.watch_sessions(false).await.expect("a list"), list(5));
            assert!(matches!(connection.next_event().await, Ok(Event::Closed { code: 1001, .. })));
        };
        let server = async {
            let mut connection = listener.accept().await;
            connection.send(&ServerMessage::Hello).await;
            assert_eq!(connection.receive().await, Some(ClientMessage::ListSessions(Some(true))));
            connection.send(&ServerMessage::ListSessionsSuccess(Box::new(list(1)))).await;
            connection.receive().await;
            connection.send(&changed(2)).await;
            connection.send(&changed(3)).await;
            connection.send(&ServerMessage::CheckConnectionsSuccess(ada(3))).await;
            assert_eq!(connection.receive().await, Some(ClientMessage::ListSessions(Some(false))));
            connection.send(&changed(4)).await;
            connection.send(&ServerMessage::ListSessionsSuccess(Box::new(list(5)))).await;
            connection.close(1001, "Server is shutting down").await;
        };
        smol::future::zip(client, server).await;
    });
}
