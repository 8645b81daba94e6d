//! Operations on the root key and the certificate authority.

use axum::extract::State;
use onecli_api::endpoints;

use super::extract::{JsonBody, Segment};
use super::operations::{Context, Operations, created, json};
use crate::handlers::{ca, key};

pub(super) fn operations() -> Operations {
    Operations::default()
        .on(&endpoints::GET_CA, async |State(context): Context| json(&ca::show(&context)))
        .on(&endpoints::ROTATE_CA, async |State(context): Context| json(&ca::rotate(&context).await?))
        .on(&endpoints::FINISH_CA, async |State(context): Context| json(&ca::finish(&context).await?))
        .on(&endpoints::GET_KEY, async |State(context): Context| json(&key::status(&context).await?))
        .on(&endpoints::ADD_SLOT, async |State(context): Context, JsonBody(request)| {
            created(&key::add(&context, request).await?)
        })
        .on(&endpoints::REMOVE_SLOT, async |State(context): Context, Segment::<String>(number)| {
            json(&key::remove(&context, &number).await?)
        })
        .on(&endpoints::ROTATE_KEY, async |State(context): Context, JsonBody(request)| {
            json(&key::rotate(&context, request).await?)
        })
}
