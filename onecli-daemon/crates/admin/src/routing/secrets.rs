//! Operations on secrets and grants.

use axum::Extension;
use axum::extract::State;
use onecli_api::{Import, SecretAdd, SecretEdit, SecretRotate, SecretTest, VaultImport, endpoints};
use onecli_model::SecretName;

use super::extract::{Caller, JsonBody, Segment, Segments};
use super::operations::{Answer, Context, Operations, created, json};
use crate::handlers::{grants, secrets, vault};

pub(super) fn operations() -> Operations {
    Operations::default()
        .on(&endpoints::LIST_SECRETS, async |State(context): Context| json(&secrets::list(&context).await?))
        .on(&endpoints::ADD_SECRET, add)
        .on(&endpoints::IMPORT_SECRETS, import)
        .on(&endpoints::GET_SECRET, async |State(context): Context, Segment(name)| {
            json(&secrets::show(&context, &name).await?)
        })
        .on(&endpoints::REMOVE_SECRET, async |State(context): Context, Segment(name)| {
            json(&secrets::remove(&context, &name).await?)
        })
        .on(&endpoints::ROTATE_SECRET, rotate)
        .on(&endpoints::EDIT_SECRET, edit)
        .on(&endpoints::ROLL_BACK_SECRET, async |State(context): Context, Segment(name)| {
            json(&secrets::rollback::rollback(&context, &name).await?)
        })
        .on(&endpoints::ENABLE_SECRET, async |State(context): Context, Segment(name)| {
            json(&secrets::set_enabled(&context, &name, true).await?)
        })
        .on(&endpoints::DISABLE_SECRET, async |State(context): Context, Segment(name)| {
            json(&secrets::set_enabled(&context, &name, false).await?)
        })
        .on(&endpoints::TEST_SECRET, test)
        .on(&endpoints::GET_VAULT, async |State(context): Context| json(&vault::status(&context).await?))
        .on(&endpoints::IMPORT_VAULT, import_vault)
        .on(&endpoints::GRANT, async |State(context): Context, Segments(agent, secret)| {
            json(&grants::grant(&context, &agent, &secret).await?)
        })
        .on(&endpoints::UNGRANT, async |State(context): Context, Segments(agent, secret)| {
            json(&grants::ungrant(&context, &agent, &secret).await?)
        })
}

async fn add(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<SecretAdd>,
) -> Answer {
    created(&secrets::add(&context, caller.uid, caller.rights, request).await?)
}

async fn import(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<Import>,
) -> Answer {
    json(&secrets::import::of_values(&context, caller.rights, request).await?)
}

async fn import_vault(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<VaultImport>,
) -> Answer {
    json(&secrets::import::of_vault(&context, caller.rights, request).await?)
}

async fn rotate(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment<SecretName>,
    JsonBody(request): JsonBody<SecretRotate>,
) -> Answer {
    json(&secrets::rotate(&context, caller.rights, &name, request).await?)
}

async fn edit(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment<SecretName>,
    JsonBody(request): JsonBody<SecretEdit>,
) -> Answer {
    json(&secrets::edit::edit(&context, caller.rights, &name, request).await?)
}

async fn test(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment<SecretName>,
    JsonBody(request): JsonBody<SecretTest>,
) -> Answer {
    json(&secrets::test::test(&context, caller.uid, &name, request).await?)
}
