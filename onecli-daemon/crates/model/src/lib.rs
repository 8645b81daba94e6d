//! The terms of the product as types. They are parsed once at the edge and then passed on unchanged.
//!
//! No I/O: the operating system is `onecli-sys`.

#![forbid(unsafe_code)]

pub mod check;
pub mod clock;
mod error_chain;
mod host;
mod identity;
pub mod operation;
pub mod path;
pub mod pattern;
pub mod placement;
pub mod printable;
pub mod random;
mod request;
pub mod rule;
pub mod secret;
mod service;
pub mod template;
mod value;

pub use host::{address_scope, authority, metadata, upstream_proxy};
pub use identity::{agent, command_cgroup, ids, placeholder_scan, placeholder_shape, runner, token};
pub use pattern::{host_scope, host_set};
pub use placement::{location, wire_form};
pub use request::{flow, named, refusal, scheme};
pub use secret::{flush_after, profile, reference, source, value_form};
pub use service::{cookies, issued, mint};
pub use template::{deny_group, harmless, narrow, recipe};
pub use value::{aws, coding, strength, value_class};

pub use check::{Check, CheckStatus};
pub use clock::Clock;
pub use error_chain::error_chain;
pub use host::address_scope::AddressScope;
pub use host::authority::{Authority, Host};
pub use host::upstream_proxy::{NoProxy, ProxyUrl};
pub use identity::agent::{Agent, CgroupName, Egress, Factors};
pub use identity::ids::{AgentId, AgentName, LogId, RequestId, SecretId, SecretName};
pub use identity::placeholder_shape::Shape;
pub use identity::runner::Runner;
pub use identity::token::{Placeholder, Token, TokenHash};
pub use operation::Operations;
pub use path::{CanonicalPath, PathReadings};
pub use pattern::host_set::HostSet;
pub use pattern::{HostPattern, MethodSet, PathPattern};
pub use placement::location::{JsonPointer, PlaceholderLocation};
pub use placement::wire_form::{RESERVED, WireForm};
pub use placement::{InjectionTarget, Placement, RequestPart, Template};
pub use printable::{misleads, printable, printable_json};
pub use random::{Random, RandomError};
pub use request::flow::Flow;
pub use request::named::NamedResource;
pub use request::refusal::{Code, Refusal};
pub use request::scheme::Scheme;
pub use rule::{Action, Mismatch, Rate, Rule, RuleError, RuleId, RuleSpec, RuleText};
pub use secret::flush_after::FlushAfter;
pub use secret::profile::Profile;
pub use secret::reference::{VaultReference, VaultReferenceError};
pub use secret::source::{Source, SourceCommand, SourceFile};
pub use secret::{Sealed, Secret, SecretValue, Target};
pub use service::cookies::CookieMode;
pub use service::issued::MaskIssued;
pub use service::mint::{Mint, TokenUrl};
pub use template::choice::TemplateChoice;
pub use template::name::TemplateName;
pub use value::aws::AwsKeys;
pub use value::value_class::{Alphabet, LengthClass, ValueClass, ValueClassError};
