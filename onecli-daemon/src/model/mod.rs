//! The words of the product as types. Parsed once at the edge, then passed on as they are.
//!
//! This module names no other module of the crate.

pub mod agent;
pub mod authority;
pub mod check;
pub mod clock;
pub mod flow;
pub mod ids;
pub mod path;
pub mod pattern;
pub mod placement;
pub mod private_dir;
pub mod random;
pub mod reference;
pub mod refusal;
pub mod runner;
pub mod secret;
pub mod sole;
pub mod token;
pub mod upstream_proxy;

pub use agent::{Agent, CgroupName, Egress, Factors};
pub use authority::{Authority, Host};
pub use check::{Check, CheckStatus};
pub use clock::{Clock, SystemClock};
pub use flow::Flow;
pub use ids::{AgentId, AgentName, LogId, RequestId, SecretId, SecretName};
pub use path::CanonicalPath;
pub use pattern::{HostPattern, MethodSet, PathPattern};
pub use placement::{Placement, Slot, Template};
pub use private_dir::{PrivateDir, PrivateDirError};
pub use random::{OsRandom, Random, RandomError};
pub use reference::{VaultReference, VaultReferenceError};
pub use refusal::{Code, Refusal};
pub use runner::Runner;
pub use secret::{Sealed, Secret, SecretValue, Target};
pub use token::{Placeholder, Token, TokenHash};
pub use upstream_proxy::{NoProxy, ProxyUrl};
