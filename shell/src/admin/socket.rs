//! The Unix socket in the data directory where a running server takes admin requests, as HTTP and JSON.
//!
//! A process that can open the socket can make every request. So only the user that the server runs as can open it (mode
//! 0600).

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{client, server};
use serde::Serialize;
use serde_json::json;
use session_core::UserId;
use smol::future::or;
use smol::lock::{Mutex, Semaphore};
use smol::net::unix::UnixStream;
use smol::{Executor, Timer};
use smol_hyper::rt::FuturesIo;

use super::bound_socket::BoundSocket;
pub use super::bound_socket::path;
use super::error::AdminRequestError;
use super::report::UserReport;
use super::request::AdminRequest;
use super::routes;
use super::service::AdminService;

/// The longest body of a request and of a response. A user's report with 1024 sessions is far below that.
const MAX_REQUEST_BYTES: usize = 4096;
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// How many connections are served at a time, and how long one may take.
const MAX_CONNECTIONS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Serves requests. Never ends. The socket is the caller's, who can serve it again if this panics.
pub async fn serve(socket: Arc<Mutex<BoundSocket>>, service: Arc<AdminService>, executor: Arc<Executor<'static>>) {
    let mut socket = socket.lock().await;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = permits.acquire_arc().await;
        match socket.accept().await {
            Ok(stream) => {
                let conversation = run_connection(stream, Arc::clone(&service));
                let late = async {
                    Timer::after(TIMEOUT).await;
                };
                executor
                    .spawn(async move {
                        or(conversation, late).await;
                        drop(permit);
                    })
                    .detach();
            }
            // Such as too many open files: it passes.
            Err(_) => drop(Timer::after(Duration::from_millis(100)).await),
        }
    }
}

async fn run_connection(stream: UnixStream, service: Arc<AdminService>) {
    let answer = service_fn(|request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(respond(request, &service).await) }
    });
    let conversation = server::conn::http1::Builder::new().serve_connection(FuturesIo::new(stream), answer);
    if let Err(error) = conversation.await {
        tracing::debug!(%error, "the connection of an operator broke");
    }
}

async fn respond(request: Request<Incoming>, service: &AdminService) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return error_response(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or broke off"),
    };
    match routes::read(&head.method, head.uri.path(), &body) {
        Ok((user, request)) => match service.handle(&user, &request).await {
            Ok(report) => json_response(StatusCode::OK, &report),
            Err(error) => error_response(routes::status(&error), &error.to_string()),
        },
        Err(AdminRequestError::NotFound) => error_response(StatusCode::NOT_FOUND, "there is nothing here"),
        Err(AdminRequestError::Bad(message)) => error_response(StatusCode::BAD_REQUEST, &message),
        Err(AdminRequestError::NotAllowed(allowed)) => {
            let mut response = error_response(StatusCode::METHOD_NOT_ALLOWED, "that cannot be done to it");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
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

/// Sends a request to the server that uses this data directory. `None` if no server listens there.
///
/// # Errors
/// A message that says why it was not carried out.
pub async fn request(data: &Path, user: &UserId, request: &AdminRequest) -> Result<Option<UserReport>, String> {
    let stream = match UnixStream::connect(path(data)).await {
        Ok(stream) => stream,
        // InvalidInput: the path is too long for a socket, so no server listens there either.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::InvalidInput
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot open {}: {error}", path(data).display())),
    };
    let (status, body) =
        send_request(stream, user, request).await.map_err(|error| format!("the server broke off: {error}"))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map(Some).map_err(|error| format!("the server's answer is odd: {error}"));
    }
    let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let message = message.and_then(|answer| answer.get("error")?.as_str().map(ToOwned::to_owned));
    Err(message.unwrap_or_else(|| format!("the server answered {status}")))
}

async fn send_request(
    stream: UnixStream,
    user: &UserId,
    request: &AdminRequest,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (method, path, body) = routes::write(user, request);
    let (mut sender, connection) = client::conn::http1::handshake(FuturesIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    let request = request.body(Full::<Bytes>::from(body))?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await?.to_bytes();
        Ok((status, body))
    };
    // The connection's future sends and receives. It ends first only if the connection breaks.
    let broken = async {
        connection.await?;
        Err("it closed without an answer".into())
    };
    or(exchange, broken).await
}
