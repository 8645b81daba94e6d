//! The parts of a request that handlers receive.
//!
//! Path segments are taken as sent: no name contains a character that needs escaping, so an escaped one is invalid.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, RawQuery};
use http::request::Parts;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::access::peer::Rights;
use crate::context::RunnableAgent;
use crate::error::AdminError;

/// The peer that sent the request, according to the kernel.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pub(crate) rights: Rights,
    /// The agents that the peer may run, if the peer is not an administrator.
    pub(crate) runs: Arc<[RunnableAgent]>,
}

/// The received request.
#[derive(Clone)]
pub(crate) struct Received {
    /// The path as sent.
    pub(crate) path: Arc<str>,
    /// The complete body; may contain a credential.
    pub(crate) body: Arc<Zeroizing<Vec<u8>>>,
}

/// The body, parsed as JSON. serde's message names the key and, for the types used here, never quotes a credential.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for JsonBody<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<JsonBody<T>, AdminError> {
        let received = parts.extensions.get::<Received>();
        let body = received.map(|received| received.body.as_slice()).unwrap_or_default();
        serde_json::from_slice(body).map(JsonBody).map_err(|error| AdminError::Invalid(error.to_string()))
    }
}

/// The query as sent, without the `?`; empty if there is none.
pub(super) struct Query(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query, AdminError> {
        let Ok(RawQuery(query)) = RawQuery::from_request_parts(parts, state).await;
        Ok(Query(query.unwrap_or_default()))
    }
}

/// The value of the path's only parameter.
pub(super) struct Segment<T>(pub(super) T);

impl<T: FromStr<Err: Display>, S: Sync> FromRequestParts<S> for Segment<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Segment<T>, AdminError> {
        parse(values(parts).next()).map(Segment)
    }
}

/// The values of the path's two parameters.
pub(super) struct Segments<A, B>(pub(super) A, pub(super) B);

impl<A: FromStr<Err: Display>, B: FromStr<Err: Display>, S: Sync> FromRequestParts<S> for Segments<A, B> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Segments<A, B>, AdminError> {
        let mut values = values(parts);
        Ok(Segments(parse(values.next())?, parse(values.next())?))
    }
}

/// Returns the segments of the path that the route has parameters for.
fn values(parts: &Parts) -> impl Iterator<Item = &str> {
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let segments = route.split('/').zip(parts.uri.path().split('/'));
    segments.filter(|(name, _)| name.starts_with('{')).map(|(_, value)| value)
}

fn parse<T: FromStr<Err: Display>>(value: Option<&str>) -> Result<T, AdminError> {
    value.unwrap_or_default().parse().map_err(|error: T::Err| AdminError::Invalid(error.to_string()))
}
