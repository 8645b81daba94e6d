//! The words of the product as types. Parsed once at the edge, then passed on as they are.
//!
//! This module names no other module of the crate.

pub mod agent;
pub mod authority;
pub mod aws;
pub mod check;
pub mod clock;
pub mod deny_group;
pub mod flow;
mod glob;
pub mod host_scope;
pub mod host_set;
pub mod ids;
pub mod issued;
pub mod mint;
pub mod narrow;
pub mod operation;
#[cfg(test)]
mod panicking;
pub mod path;
pub mod pattern;
pub mod peer;
pub mod placeholder_scan;
pub mod placement;
pub mod private_dir;
pub mod profile;
pub mod random;
pub mod reach;
pub mod reference;
pub mod refusal;
pub mod rule;
pub mod runner;
pub mod secret;
pub mod site;
pub mod sole;
pub mod source;
pub mod strength;
pub mod template;
pub mod token;
pub mod trusted;
pub mod upstream_proxy;
pub mod value_class;
pub mod wire_form;

pub use agent::{Agent, CgroupName, Egress, Factors};
pub use authority::{Authority, Host};
pub use aws::AwsKeys;
pub use check::{Check, CheckStatus};
pub use clock::{Clock, SystemClock};
pub use flow::Flow;
pub use host_set::HostSet;
pub use ids::{AgentId, AgentName, LogId, RequestId, SecretId, SecretName};
pub use issued::MaskIssued;
pub use mint::{Mint, TokenUrl};
pub use narrow::TemplateChoice;
pub use operation::Operations;
#[cfg(test)]
pub(crate) use panicking::{panic_text, unwrap_text};
pub use path::{CanonicalPath, PathReadings};
pub use pattern::{HostPattern, MethodSet, PathPattern};
pub use placement::{Placement, Slot, Template};
pub use private_dir::{PrivateDir, PrivateDirError};
pub use profile::{Profile, Shape, TemplateName};
pub use random::{OsRandom, Random, RandomError};
pub use reach::Reach;
pub use reference::{VaultReference, VaultReferenceError};
pub use refusal::{Code, Refusal};
pub use rule::{Action, Mismatch, Rate, Rule, RuleError, RuleId, RuleText, Terms};
pub use runner::Runner;
pub use secret::{Sealed, Secret, SecretValue, Target};
pub use site::{JsonPointer, Site};
pub use source::{Source, SourceCommand, SourceFile};
pub use token::{Placeholder, Token, TokenHash};
pub use upstream_proxy::{NoProxy, ProxyUrl};
pub use value_class::{Alphabet, LengthClass, ValueClass, ValueClassError};
pub use wire_form::{RESERVED, WireForm, base64_core};
