//! AWS Signature Version 4: the agent's own signature is removed, and the request is signed anew.

use std::fmt;

use http::header;
use serde::{Deserialize, Serialize};

use super::error::PlacementError;
use super::kind::{InjectionTarget, PlacementKind, PlacementOption};
use super::wire_form::WireForm;
use crate::value::aws::AwsKeys;
use crate::value::secret_value::SecretValue;

const OPTIONS: &[PlacementOption] = &[PlacementOption::new(
    "sigv4",
    "REGION/SERVICE",
    "Sign requests again with AWS Signature Version 4. The value is ID:SECRET, ID:SECRET:TOKEN or JSON. '*' takes the \
     region or service from the agent's own signature",
)
.edited("Sign requests with AWS Signature Version 4; see 'onecli secret add --help'")];

/// AWS Signature Version 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SigV4 {
    /// The only permitted region. `None` for the region that the agent signed for, which must match the host.
    pub region: Option<String>,
    /// The only permitted service. `None` for the service that the agent signed for.
    pub service: Option<String>,
    /// Services that are never permitted.
    #[serde(default)]
    pub except: Vec<String>,
}

impl SigV4 {
    fn new(
        region: Option<String>,
        service: Option<String>,
        except: Vec<String>,
    ) -> Result<SigV4, PlacementError> {
        let ok = |text: &&String| {
            !(1..=64).contains(&text.len())
                || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match region.iter().chain(&service).chain(&except).find(ok) {
            Some(bad) => {
                Err(PlacementError::Scope(bad.chars().take(80).flat_map(char::escape_default).collect()))
            }
            None => Ok(SigV4 { region, service, except }),
        }
    }

    /// Returns the scope `REGION/SERVICE`, either of them `*`, and never for the services `except`.
    ///
    /// # Errors
    /// [`PlacementError::Scope`].
    pub fn scoped(scope: &str, except: Vec<String>) -> Result<SigV4, PlacementError> {
        let (region, service) = scope.split_once('/').unwrap_or((scope, "*"));
        let part = |text: &str| (text != "*").then(|| text.to_owned());
        SigV4::new(part(region), part(service), except)
    }
}

impl PlacementKind for SigV4 {
    fn options() -> &'static [PlacementOption] {
        OPTIONS
    }

    fn parse(_word: &str, scope: &str) -> Result<SigV4, PlacementError> {
        SigV4::scoped(scope, Vec::new())
    }

    fn target(&self) -> InjectionTarget {
        InjectionTarget::Header(header::AUTHORIZATION)
    }

    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        match AwsKeys::parse(value) {
            Ok(keys) => keys.token.iter().flat_map(WireForm::plain).collect(),
            // Such a value cannot be used, so no part of it was sent.
            Err(_) => Vec::new(),
        }
    }

    fn check_value(&self, value: &SecretValue) -> Result<(), String> {
        AwsKeys::parse(value).map(drop).map_err(|error| error.to_string())
    }

    fn sends_value(&self) -> bool {
        false
    }
}

impl fmt::Display for SigV4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "*".to_owned());
        write!(f, "sigv4 {}/{}", part(&self.region), part(&self.service))
    }
}

/// The serialized form.
#[derive(Deserialize)]
struct Unchecked {
    region: Option<String>,
    service: Option<String>,
    #[serde(default)]
    except: Vec<String>,
}

impl TryFrom<Unchecked> for SigV4 {
    type Error = PlacementError;

    fn try_from(unchecked: Unchecked) -> Result<SigV4, PlacementError> {
        SigV4::new(unchecked.region, unchecked.service, unchecked.except)
    }
}
