//! Placement in a segment of the URL path.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::PlacementError;
use super::kind::{InjectionTarget, PlacementKind, PlacementOption, RequestPart};
use super::template::Template;
use super::wire_form::WireForm;
use crate::path::CanonicalPath;
use crate::value::secret_value::SecretValue;

const OPTIONS: &[PlacementOption] = &[PlacementOption::new(
    "segment",
    "TEMPLATE",
    "Place the credential in a segment of the URL path: 'bot{secret}' for /bot.../sendMessage. The agent sends its \
     placeholder there. Records and rules see the placeholder, so --path is '/bot*/**'",
)
.edited("Place the credential in a segment of the URL path; see 'onecli secret add --help'")];

/// A segment of the URL path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Segment {
    /// The segment, with the place of the value.
    pub template: Template,
}

impl Segment {
    /// Returns the segment with `value`. `None` if servers may read it as something else than this one segment, or
    /// in another spelling.
    pub fn with(&self, value: &[u8]) -> Option<Zeroizing<String>> {
        let value = std::str::from_utf8(value).ok().filter(|value| !value.is_empty() && is_plain(value))?;
        let (before, after) = self.template.parts();
        let path = Zeroizing::new(format!("/{before}{value}{after}"));
        let canonical = CanonicalPath::parse(&path).ok()?;
        (canonical.ambiguity().is_none() && canonical.as_str() == *path)
            .then(|| Zeroizing::new(path[1..].to_owned()))
    }
}

/// Returns whether all characters may be in a segment (RFC 3986 section 3.3) without an escape, and servers do not
/// read them as anything else. A `;` begins a parameter on some servers.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&b))
}

impl PlacementKind for Segment {
    fn options() -> &'static [PlacementOption] {
        OPTIONS
    }

    fn parse(_word: &str, text: &str) -> Result<Segment, PlacementError> {
        let template = Template::new(text)?;
        let (before, after) = template.parts();
        if is_plain(before) && is_plain(after) {
            return Ok(Segment { template });
        }
        let reason = "is not one segment of a path: write bot{secret}, without '/', '?', '#', '%' and ';'";
        Err(PlacementError::text(text, reason))
    }

    fn target(&self) -> InjectionTarget {
        InjectionTarget::Part { kind: "segment", name: self.template.to_string() }
    }

    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        WireForm::of_url(value)
    }

    fn placeholder_part(&self) -> Option<RequestPart> {
        Some(RequestPart::Head)
    }

    fn place(&self) -> String {
        format!("the path segment {}", self.template)
    }

    fn check_value(&self, value: &SecretValue) -> Result<(), String> {
        self.with(value.expose()).map(drop).ok_or_else(|| {
            "the value cannot be in a segment of a URL path: it may have letters, digits and -._~!$&'()*+,=:@ only"
                .to_owned()
        })
    }

    fn is_token(&self) -> bool {
        true
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}", self.template)
    }
}

/// The serialized form.
#[derive(Deserialize)]
struct Unchecked {
    template: String,
}

impl TryFrom<Unchecked> for Segment {
    type Error = PlacementError;

    fn try_from(unchecked: Unchecked) -> Result<Segment, PlacementError> {
        Segment::parse("", &unchecked.template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Placement;

    #[test]
    fn stored_form_round_trips_and_is_validated() {
        let placement = Placement::parse("segment", "bot{secret}").unwrap().unwrap();
        let text = serde_json::to_string(&placement).unwrap();
        assert_eq!(text, r#"{"kind":"segment","template":"bot{secret}"}"#);
        assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), placement);
        for bad in [
            "",
            "bot",
            "/bot{secret}",
            "a/{secret}",
            "{secret}?",
            "{secret}#",
            "%41{secret}",
            "{secret};a",
            "a {secret}",
        ] {
            assert!(Placement::parse("segment", bad).unwrap().is_err(), "{bad}");
            let text = format!(r#"{{"kind":"segment","template":"{bad}"}}"#);
            assert!(serde_json::from_str::<Placement>(&text).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_must_fit_into_one_segment() {
        let check = |template: &str, value: &str, expected: bool| {
            let placement = Placement::parse("segment", template).unwrap().unwrap();
            let value_of = SecretValue::new(value.as_bytes().to_vec()).unwrap();
            let error = placement.check_value(&value_of).err();
            assert_eq!(error.is_none(), expected, "{template} {value}");
            assert!(error.is_none_or(|error| !error.contains("canary")));
        };
        check("bot{secret}", "110201543:AAHcanary-4jkWU_f", true);
        check("{secret}", "canary~!$&'()*+,=:@", true);
        for value in [
            "canary/x",
            "canary?x",
            "canary#x",
            "canary%2Fx",
            "canaryx%",
            "canary;x",
            "canary x",
            "canary\\x",
        ] {
            check("bot{secret}", value, false);
        }
        for value in ["canaryéx", "canary\"x", "canary{x}", "canaries^", "canary|x", "canary\u{ff0f}x"] {
            check("bot{secret}", value, false);
        }
        // Some servers read these as a step upwards.
        check("{secret}", "........", false);
        check(".{secret}", ".::$DATA", false);
    }
}
