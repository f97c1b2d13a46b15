//! Calls by HTTP and JSON, for `curl` and for other languages.
//!
//! `POST /call/SERVER/PROCEDURE` with the arguments as JSON (4 MiB at most) calls a procedure exactly once and answers an object with one field:
//!
//! | field | status | |
//! |---|---|---|
//! | `value` | 200 | it was executed, and that is its value |
//! | `error` | 422 | it was executed, and that is its error |
//! | `failed` | 503 | `executed` is `not_at_all`: a retry is safe; `reason` says why |
//! | `failed` | 504 | `executed` is `not_more_than_once` |
//!
//! `?deadline_ms=N` sets the deadline, 30 s without it. Only procedures that were exposed are called (404), the body is JSON by its content type (415) and by its
//! text (400; these two answers are plain text), and the host that is asked for is the loopback interface (403): so no web page makes calls. At most 256 requests are on their way; a body has to come within 10 s (408).

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, Json, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header::HOST};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{CallError, Caller, Procedure, RpcHandle};
use crate::{Executed, Failure, Reason};

/// Requests on their way at a time.
const REQUESTS_MAX: usize = 256;
/// Bytes of a request.
const BODY_MAX: usize = 4 << 20;
/// How long a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Route = Box<dyn Fn(Caller, Value) -> Answer + Send + Sync>;

/// Procedures that are called by HTTP. See the [module](self).
pub struct Gateway {
    rpc: RpcHandle,
    routes: BTreeMap<&'static str, Route>,
}

struct Shared {
    gateway: Gateway,
    places: Semaphore,
}

#[derive(Deserialize)]
struct Options {
    deadline_ms: Option<u64>,
}

impl Gateway {
    /// A gateway that exposes nothing yet.
    #[must_use]
    pub fn new(rpc: RpcHandle) -> Self {
        Self { rpc, routes: BTreeMap::new() }
    }

    /// Exposes a procedure, under its name.
    #[must_use]
    pub fn expose<P: Procedure>(mut self) -> Self {
        let route = |caller: Caller, arguments: Value| -> Answer {
            Box::pin(async move {
                match serde_json::from_value::<P>(arguments) {
                    Ok(arguments) => answer::<P>(caller.exactly_once(arguments).await),
                    Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
                }
            })
        };
        self.routes.insert(P::NAME, Box::new(route));
        self
    }

    /// Serves until it is dropped.
    ///
    /// # Errors
    /// The listener is not on the loopback interface, or has failed.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        if !listener.local_addr()?.ip().is_loopback() {
            let why = "without TLS calls are taken on the loopback interface only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let shared = Shared { gateway: self, places: Semaphore::new(REQUESTS_MAX) };
        let shared = Arc::new(shared);
        let router = Router::new()
            .route("/call/{server}/{procedure}", post(call))
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .layer(from_fn_with_state(Arc::clone(&shared), admit))
            .with_state(shared);
        axum::serve(listener, router).await
    }
}

/// A request has its place before anything of its body is read, and its body comes whole within a time.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if !is_own_host(request.headers()) {
        return refuse(StatusCode::FORBIDDEN, "the host is not the loopback interface");
    }
    let Ok(_place) = shared.places.try_acquire() else {
        return failed(&Failure::not_at_all(Reason::Full));
    };
    let (parts, body) = request.into_parts();
    match timeout(BODY_WITHIN, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(_)) => refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broke off"),
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    }
}

async fn call(
    State(shared): State<Arc<Shared>>,
    Path((server, procedure)): Path<(String, String)>,
    Query(options): Query<Options>,
    Json(arguments): Json<Value>,
) -> Response {
    let Some(route) = shared.gateway.routes.get(procedure.as_str()) else {
        return refuse(StatusCode::NOT_FOUND, "no such procedure is exposed");
    };
    match shared.gateway.rpc.to_name(&server) {
        Ok(caller) => {
            let caller = match options.deadline_ms {
                Some(millis) => caller.deadline(Duration::from_millis(millis)),
                None => caller,
            };
            route(caller, arguments).await
        }
        Err(failure) => failed(&failure),
    }
}

/// A page whose name was pointed at this machine asks for another host.
fn is_own_host(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

fn answer<P: Procedure>(told: Result<super::Value<P>, CallError<super::Error<P>>>) -> Response {
    match told {
        Ok(value) => Json(json!({ "value": value })).into_response(),
        Err(CallError::Remote(error)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error }))).into_response()
        }
        Err(CallError::Failed(failure)) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> Response {
    let (status, executed) = match failure.executed {
        Executed::NotAtAll => (StatusCode::SERVICE_UNAVAILABLE, "not_at_all"),
        Executed::Unknown => (StatusCode::GATEWAY_TIMEOUT, "unknown"),
        Executed::NotMoreThanOnce => (StatusCode::GATEWAY_TIMEOUT, "not_more_than_once"),
        Executed::NoneOrComplete => (StatusCode::GATEWAY_TIMEOUT, "none_or_complete"),
    };
    let reason = failure.reason.to_string();
    (status, Json(json!({ "failed": { "executed": executed, "reason": reason } }))).into_response()
}

fn refuse(status: StatusCode, why: &str) -> Response {
    let failed = json!({ "failed": { "executed": "not_at_all", "reason": why } });
    (status, Json(failed)).into_response()
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.routes.keys()).finish()
    }
}
