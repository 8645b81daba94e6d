//! `status` and `ca export`.

use super::api::{Ca, Status};
use super::error::AdminError;
use super::host::Transparent;
use super::state::State;

pub(super) async fn status(state: &State) -> Result<Status, AdminError> {
    let host = &state.handles.host;
    let stored = state.load().await?;
    let transparent = host.transparent();
    let transparent_fault =
        if transparent == Transparent::Available { host.check_transparent().err() } else { None };
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: state.started,
        transparent,
        transparent_fault,
        explicit: host.explicit_address(),
        agents: stored.agents.len(),
        secrets: stored.secrets.len(),
        counters: host.counters(),
    })
}

pub(super) fn ca(state: &State) -> Ca {
    Ca { pem: state.handles.host.ca_pem(), bundle: state.handles.host.ca_bundle_path() }
}
