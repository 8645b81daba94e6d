//! Adds operations of the API's table to a router, and makes their responses.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, StatusCode, header};
use onecli_api::{Endpoint, Verb};
use serde::Serialize;
use tracing::Instrument;

use super::access::{no_operation, require};
use super::extract::Caller;
use crate::context::AdminContext;
use crate::error::AdminError;

/// The state of all handlers.
pub(super) type Context = State<Arc<AdminContext>>;
/// The outcome of a handler.
pub(super) type Answer = Result<Response, AdminError>;

/// A set of operations, each with the access that the table requires.
#[derive(Default)]
pub(super) struct Operations(Router<Arc<AdminContext>>);

impl Operations {
    /// Adds an operation for callers whose rights include the endpoint's access.
    pub(super) fn on<H, T>(self, endpoint: &Endpoint, handler: H) -> Operations
    where
        H: Handler<T, Arc<AdminContext>>,
        T: 'static,
    {
        let access = endpoint.access;
        let check = middleware::from_fn(move |caller, request: Request, next: Next| {
            require(access, caller, request, next)
        });
        let operation = on(filter(endpoint.verb), handler).route_layer(check);
        self.add(endpoint, operation)
    }

    /// Adds an operation whose handler answers about the caller's own agents only.
    pub(super) fn on_own_agents<H, T>(self, endpoint: &Endpoint, handler: H) -> Operations
    where
        H: Handler<T, Arc<AdminContext>>,
        T: 'static,
    {
        self.add(endpoint, on(filter(endpoint.verb), handler))
    }

    fn add(
        self,
        endpoint: &Endpoint,
        operation: axum::routing::MethodRouter<Arc<AdminContext>>,
    ) -> Operations {
        // axum answers HEAD with the handler of GET; the API has no such operation.
        let operation = if endpoint.verb == Verb::Get { operation.head(no_operation) } else { operation };
        Operations(self.0.route(endpoint.path, operation))
    }

    pub(super) fn merge(self, other: Operations) -> Operations {
        Operations(self.0.merge(other.0))
    }

    /// Runs each handler in a task of its own: a client that disconnects must not leave a change stored but not active.
    pub(super) fn completed_without_client(self) -> Operations {
        Operations(self.0.route_layer(middleware::from_fn(complete_without_client)))
    }

    /// Makes the handlers wait for one of the turns that all runners share.
    pub(super) fn with_runner_turns(self, context: &Arc<AdminContext>) -> Operations {
        let turns = middleware::from_fn_with_state(Arc::clone(context), take_runner_turn);
        Operations(self.0.route_layer(turns))
    }

    /// Completes the router.
    pub(super) fn into_router(self, context: &Arc<AdminContext>) -> Router {
        let router = self.0.fallback(no_operation).method_not_allowed_fallback(no_operation);
        router.with_state(Arc::clone(context))
    }
}

fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Post => MethodFilter::POST,
        Verb::Put => MethodFilter::PUT,
        Verb::Delete => MethodFilter::DELETE,
    }
}

async fn complete_without_client(
    axum::Extension(Caller { uid, pid, .. }): axum::Extension<Caller>,
    request: Request,
    next: Next,
) -> Answer {
    let span = tracing::info_span!("admin", uid, pid);
    let answered = tokio::spawn(next.run(request).instrument(span)).await;
    answered.map_err(|_| AdminError::Internal("a handler panicked"))
}

async fn take_runner_turn(State(context): Context, request: Request, next: Next) -> Answer {
    let turn = context.runner_turns.acquire().await;
    let _turn = turn.map_err(|_| AdminError::Internal("the daemon is shutting down"))?;
    Ok(next.run(request).await)
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        refuse(&self)
    }
}

/// Responds with an error.
pub(crate) fn refuse(error: &AdminError) -> Response {
    if error.status().is_server_error() {
        tracing::error!(%error, "admin request failed");
    }
    let bytes = serde_json::to_vec(&error.body()).unwrap_or_default();
    with_body(error.status(), "application/json", bytes.into())
}

/// Responds with a JSON document.
pub(super) fn json(answer: &impl Serialize) -> Answer {
    with_status(StatusCode::OK, answer)
}

/// Responds with a JSON document about something new.
pub(super) fn created(answer: &impl Serialize) -> Answer {
    with_status(StatusCode::CREATED, answer)
}

/// Responds with JSON lines that are in memory.
pub(super) fn lines(lines: Vec<u8>) -> Response {
    with_body(StatusCode::OK, "application/jsonl", lines.into())
}

/// Responds with bytes as they become available.
pub(super) fn stream(
    kind: &'static str,
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response {
    with_body(StatusCode::OK, kind, Body::from_stream(bytes))
}

fn with_status(status: StatusCode, answer: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(answer)
        .map_err(|_| AdminError::Internal("the response could not be serialized"))?;
    Ok(with_body(status, "application/json", bytes.into()))
}

fn with_body(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
