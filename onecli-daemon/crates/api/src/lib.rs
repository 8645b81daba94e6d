//! Requests and responses of the admin socket, shared by the daemon and the CLI.
//!
//! HTTP/1.1 over a Unix socket, one request per connection, JSON bodies. [`endpoints`] has every operation with the
//! access that it needs, and [`routes`] the paths. Every error is an [`ErrorBody`].

#![forbid(unsafe_code)]

mod agents;
mod approvals;
mod audit;
mod doctor;
mod edit;
mod endpoint;
pub mod endpoints;
mod env;
mod environment;
mod error;
mod grants;
mod keys;
pub mod routes;
mod rules;
mod running;
mod secret_test;
mod secrets;
mod session;
mod status;
mod value;
mod vault;

pub use agents::{
    AgentAdd, AgentChanged, AgentDetail, AgentRemoved, AgentSet, AgentToken, AgentView, FieldChange,
};
pub use approvals::{ApprovalDetail, ApprovalEvent, ApprovalOutcome, BodyView, HeaderView};
pub use audit::{AuditFilter, AuditQuery};
pub use doctor::Doctor;
pub use edit::{DROPS_RETAINED_VALUE, SecretEdit, SecretEdited, SecretRotate, VALUE_REQUIRED};
pub use endpoint::{Access, Endpoint, Verb};
pub use env::{EnvName, EnvNameError, EnvNames};
pub use environment::{AgentEnv, AgentEnvRequest};
pub use error::{ErrorBody, ErrorDetail, HELP, VALUE_DOUBTFUL};
pub use grants::GrantView;
pub use keys::{
    Ca, CaCertificate, KeyRotate, KeyRotated, KeyView, RecoveryKey, RekeyView, SlotAdd, SlotAdded, SlotView,
    WireKey,
};
pub use routes::DEFAULT_SOCKET;
pub use rules::{
    ApprovalView, ConsideredView, Explain, Explanation, LearnedRule, Refusals, RefusedTarget, RuleAdd,
    RuleView,
};
pub use running::RunningAgent;
pub use secret_test::{SecretTest, SecretTestResult};
pub use secrets::{SecretAdd, SecretView};
pub use session::{Caller, Session, SessionRequest};
pub use status::{AuditStatus, Status, Transparent};
pub use value::WireValue;
pub use vault::{Import, ImportOptions, ImportOutcome, Imported, NamedValue, VaultImport, VaultView};
