//! The operations, by noun.

pub(crate) mod agents;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod ca;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod grants;
pub(crate) mod key;
pub(crate) mod recipes;
pub(crate) mod refusals;
pub(crate) mod rules;
pub(crate) mod scope;
pub(crate) mod secrets;
pub(crate) mod status;
pub(crate) mod vault;
