//! The Unix socket in the data directory where a running server takes admin requests, as HTTP and JSON.
//!
//! A process that can open the socket can make every request. So only the user that the server runs as can open it (mode
//! 0600).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{client, server};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use session_core::{NodeId, UserId};
use smol::channel::{Receiver, Sender};
use smol::future::or;
use smol::lock::Semaphore;
use smol::net::unix::UnixStream;
use smol::{Executor, Timer};
use smol_hyper::rt::FuturesIo;

use super::bound_socket::BoundSocket;
use super::error::{AdminError, AdminRequestError};
use super::nodes::{BurialReport, NodesReport};
use super::report::UserReport;
use super::request::{AdminCall, AdminRequest};
use super::routes;
use super::service::AdminService;
use super::socket_address::SocketAddress;
pub use super::socket_address::path;
use super::status::StatusReport;
use super::user_list::{UserList, UserListRequest};
use crate::runtime::access::{self, Right};
use crate::runtime::events::log_event;

/// The longest body of a request and of a response. A user's report with 1024 sessions is far below that, and so is a page of
/// 1000 users with the longest ids.
const MAX_REQUEST_BYTES: usize = 4096;
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// The bounds of the connections to the socket.
#[derive(Debug, Clone, Copy)]
pub struct SocketBounds {
    /// How many there are at a time. One more takes the place of the oldest that the server does not work for: one whose
    /// request has not come, or whose answer is sent.
    pub connections: usize,
    /// How long the first request may take to come.
    pub request_timeout: Duration,
    /// How long a connection may last.
    pub timeout: Duration,
}

impl Default for SocketBounds {
    /// 16 connections, a second for the request, 30 seconds in all.
    fn default() -> Self {
        Self { connections: 16, request_timeout: Duration::from_secs(1), timeout: Duration::from_secs(30) }
    }
}

/// Serves requests. Never ends. The socket is the caller's, who can serve it again if this panics.
pub async fn serve(
    socket: Arc<smol::lock::Mutex<BoundSocket>>,
    service: Arc<AdminService>,
    executor: Arc<Executor<'static>>,
    bounds: SocketBounds,
) {
    let mut socket = socket.lock().await;
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let idle = Arc::<IdleConnections>::default();
    loop {
        match socket.accept().await {
            Ok(stream) => {
                let permit = match permits.try_acquire_arc() {
                    Some(permit) => permit,
                    None => {
                        let make_room = async {
                            idle.close_oldest().await;
                            permits.acquire_arc().await
                        };
                        or(permits.acquire_arc(), make_room).await
                    }
                };
                let conversation = run_connection(stream, Arc::clone(&service), Arc::clone(&idle), bounds);
                executor
                    .spawn(async move {
                        conversation.await;
                        drop(permit);
                    })
                    .detach();
            }
            // Such as too many open files: it passes.
            Err(_) => drop(Timer::after(Duration::from_millis(100)).await),
        }
    }
}

/// The connections whose request has not come yet, by age. Closing the sender of one closes the connection.
#[derive(Default)]
struct IdleConnections(Mutex<IdleList>);

#[derive(Default)]
struct IdleList {
    last: u64,
    /// Since when each is open, and what keeps it so.
    connections: BTreeMap<u64, (Instant, Sender<()>)>,
}

impl IdleConnections {
    /// A connection that is open for a shorter time is not closed: its request may be about to be read.
    const GRACE: Duration = Duration::from_millis(10);

    /// Adds a connection. The receiver fails when the connection has to close.
    fn add(&self) -> (u64, Receiver<()>) {
        let (close, closed) = smol::channel::bounded(1);
        let mut list = self.lock();
        list.last += 1;
        let number = list.last;
        list.connections.insert(number, (Instant::now(), close));
        (number, closed)
    }

    /// Takes a connection off the list when its request has come. `None` if it has to close.
    fn take(&self, number: u64) -> Option<Sender<()>> {
        self.lock().connections.remove(&number).map(|(_, close)| close)
    }

    /// Waits until the oldest is old enough, and closes it.
    async fn close_oldest(&self) {
        loop {
            let age = self.lock().connections.first_key_value().map(|(_, (since, _))| since.elapsed());
            match age.map_or(Self::GRACE, |age| Self::GRACE.saturating_sub(age)) {
                Duration::ZERO => return drop(self.lock().connections.pop_first()),
                left => drop(Timer::after(left).await),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, IdleList> {
        // Every change is a single one, so a poisoned list is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run_connection(
    stream: UnixStream,
    service: Arc<AdminService>,
    idle: Arc<IdleConnections>,
    bounds: SocketBounds,
) {
    let (number, closed) = idle.add();
    // From the request on, the connection stays open until its answer is written: an order that was carried out is answered.
    let begun = OnceLock::new();
    let answer = service_fn(|request| async {
        let begin = || idle.take(number).map(|close| begun.set(close));
        Ok::<_, Infallible>(respond(request, &service, begin).await)
    });
    // One request for each connection. Otherwise one that waits for its client's next request would keep others out.
    let conversation =
        server::conn::http1::Builder::new().keep_alive(false).serve_connection(FuturesIo::new(stream), answer);
    let conversation = async {
        if let Err(error) = conversation.await {
            log_event!(operator_connection_broke { error: display(error) });
        }
    };
    let late = async {
        Timer::after(bounds.request_timeout).await;
        if begun.get().is_some() {
            Timer::after(bounds.timeout.saturating_sub(bounds.request_timeout)).await;
        }
    };
    let displaced = async {
        let _closed = closed.recv().await;
    };
    or(conversation, or(late, displaced)).await;
    drop(idle.take(number));
}

/// Answers a request. Calls `begin` when the whole request has come. If that returns `None`, the connection is about to be
/// closed, and this never ends.
async fn respond<T>(
    request: Request<Incoming>,
    service: &AdminService,
    begin: impl FnOnce() -> Option<T>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
    // A connection that is being closed must not change anything any more.
    if begin().is_none() {
        return pending().await;
    }
    match body {
        Ok(body) => answer(&head, &body.to_bytes(), service).await,
        Err(_) => error_response(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or broke off"),
    }
}

async fn answer(head: &request::Parts, body: &[u8], service: &AdminService) -> Response<Full<Bytes>> {
    let target = head.uri.path_and_query().map_or(head.uri.path(), PathAndQuery::as_str);
    match routes::read(&head.method, target, body) {
        Ok(AdminCall::OfUser(user, request)) => result_response(&service.handle(&user, &request).await),
        Ok(AdminCall::ListUsers(request)) => result_response(&service.list_users(&request).await),
        Ok(AdminCall::ListNodes) => result_response(&service.list_nodes().await),
        Ok(AdminCall::Bury(node)) => result_response(&service.bury(node).await),
        Ok(AdminCall::Status) => json_response(StatusCode::OK, &service.status().await),
        Err(AdminRequestError::NotFound) => error_response(StatusCode::NOT_FOUND, "there is nothing here"),
        Err(AdminRequestError::Bad(message)) => error_response(StatusCode::BAD_REQUEST, &message),
        Err(AdminRequestError::NotAllowed(allowed)) => {
            let mut response = error_response(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done to it");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
    }
}

fn result_response(result: &Result<impl Serialize, AdminError>) -> Response<Full<Bytes>> {
    match result {
        Ok(report) => json_response(StatusCode::OK, report),
        Err(error) => error_response(routes::status(error), &error.to_string()),
    }
}

fn error_response(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json_response(status, &json!({ "error": message }))
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).expect("words and numbers always serialise");
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Sends a request about a user to the server that uses this data directory. `None` if no server listens there.
///
/// # Errors
/// A message that says why it was not carried out.
pub async fn request(data: &Path, user: &UserId, request: &AdminRequest) -> Result<Option<UserReport>, String> {
    call(data, &AdminCall::OfUser(user.clone(), request.clone())).await
}

/// Asks the server that uses this data directory for a page of users. `None` if no server listens there.
///
/// # Errors
/// A message that says why there is no answer.
pub async fn list_users(data: &Path, request: &UserListRequest) -> Result<Option<UserList>, String> {
    call(data, &AdminCall::ListUsers(request.clone())).await
}

/// Asks the server that uses this data directory how it is doing. `None` if no server listens there.
///
/// # Errors
/// A message that says why there is no answer.
pub async fn status(data: &Path) -> Result<Option<StatusReport>, String> {
    call(data, &AdminCall::Status).await
}

/// Asks the server that uses this data directory which servers share its store. `None` if no server listens there.
///
/// # Errors
/// A message that says why there is no answer.
pub async fn list_nodes(data: &Path) -> Result<Option<NodesReport>, String> {
    call(data, &AdminCall::ListNodes).await
}

/// Has the server that uses this data directory declare another one dead. `None` if no server listens there.
///
/// # Errors
/// A message that says why it was not carried out.
pub async fn bury(data: &Path, node: NodeId) -> Result<Option<BurialReport>, String> {
    call(data, &AdminCall::Bury(node)).await
}

async fn call<T: DeserializeOwned>(data: &Path, call: &AdminCall) -> Result<Option<T>, String> {
    let connected = match SocketAddress::new(data) {
        Ok(address) => UnixStream::connect(address.path()).await,
        Err(error) => Err(error),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => {
            let path = path(data);
            return Err(format!("cannot open {}: {}", path.display(), access::explain(&error, &path, Right::Write)));
        }
    };
    let (status, body) = send_request(stream, call).await.map_err(|error| format!("the server broke off: {error}"))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map(Some).map_err(|error| {
            format!(
                "the server has answered, but in another form: it may be of another version, and may have done it ({error})"
            )
        });
    }
    let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let message = message.and_then(|answer| answer.get("error")?.as_str().map(ToOwned::to_owned));
    Err(message.unwrap_or_else(|| format!("the server answered {status}")))
}

async fn send_request(
    stream: UnixStream,
    call: &AdminCall,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (method, path, body) = routes::write(call);
    let (mut sender, connection) = client::conn::http1::handshake(FuturesIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    let request = request.body(Full::<Bytes>::from(body))?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await?.to_bytes();
        Ok((status, body))
    };
    // The connection's future sends and receives. It ends when the server has closed, perhaps before the exchange has taken the
    // whole answer; without an answer the exchange fails by itself.
    let sending = async {
        connection.await?;
        pending().await
    };
    or(exchange, sending).await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use session_core::ledger::SlotLimit;

    use super::*;
    use crate::store::MemoryStore;

    /// With these bounds nothing but the displacement makes room.
    const NO_TIMEOUT: Duration = Duration::from_secs(3600);

    #[test]
    fn silent_connections_keep_no_operator_waiting() {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new(NodeId::new(1), SlotLimit::default()));
        let service = Arc::new(AdminService::new(store, None, Duration::from_secs(5)));
        let listener = Arc::new(smol::lock::Mutex::new(BoundSocket::bind(data.path())));
        let executor = Arc::new(Executor::new());
        let bounds = SocketBounds { connections: 3, request_timeout: NO_TIMEOUT, timeout: NO_TIMEOUT };
        let serving = executor.spawn(serve(listener, service, Arc::clone(&executor), bounds));
        let user = UserId::parse("ada").unwrap();
        let work = async {
            let mut silent = Vec::new();
            for _ in 0..30 {
                silent.push(UnixStream::connect(path(data.path())).await.unwrap());
            }
            for _ in 0..5 {
                let report = request(data.path(), &user, &AdminRequest::Explain).await.unwrap().unwrap();
                assert_eq!(report.connections, 0);
            }
            // The oldest made room. An operator's own connection is closed once it is answered.
            for stream in &mut silent[..27] {
                assert!(matches!(smol::io::AsyncReadExt::read(stream, &mut [0]).await, Ok(0) | Err(_)));
            }
        };
        let late = async {
            Timer::after(Duration::from_secs(20)).await;
            panic!("the operator waits");
        };
        smol::block_on(executor.run(or(pin!(work), late)));
        drop(serving);
    }
}
