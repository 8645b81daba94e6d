//! Narrow profiles of a template: the requests that a secret allows, instead of the requests that it denies.

use serde::{Deserialize, Serialize};

use crate::pattern::{HostPattern, MethodSet, PathPattern};

/// The part of a service that one kind of work needs. The template's denials apply in addition.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NarrowProfile {
    /// Its name after the template's: a-z, 0-9, `-`.
    pub name: String,
    /// Its purpose.
    pub title: String,
    /// Hosts that replace the template's. Empty for the template's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// The only permitted methods.
    pub methods: MethodSet,
    /// The only permitted paths.
    pub paths: Vec<PathPattern>,
    /// Whether the operator must name the host, for example of a bucket or a region.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wants_host: bool,
}
