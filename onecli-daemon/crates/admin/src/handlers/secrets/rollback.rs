//! `secret rollback`: the value before the current one becomes the next version.

use onecli_api::SecretView;
use onecli_model::SecretName;

use super::checks::weak_value_warning;
use super::retained::previous;
use super::value::{Retention, store_value};
use super::view::finish_change;
use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

pub(crate) async fn rollback(context: &AdminContext, name: &SecretName) -> Result<SecretView, AdminError> {
    let change = context.begin_change().await?;
    let current = change.stored.secret(name)?;
    let value = previous(context, &change.stored, current)?;
    let secret = store_value(context, current, &value, Retention::Replaced).await?;
    let warnings = weak_value_warning(&secret, &value).into_iter().collect();
    finish_change(context, change, "secret rollback", name, warnings).await
}
