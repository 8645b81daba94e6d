//! What every process of this program needs: errors with exit codes, the log, the service manager, and the check of a
//! peer.

mod error;
pub(crate) mod journal;
pub(crate) mod peer;
pub(crate) mod service_manager;
pub(crate) mod task_group;

pub(crate) use error::AppError;
