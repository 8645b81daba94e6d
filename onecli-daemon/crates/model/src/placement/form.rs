//! Placement in a field of a form body, `application/x-www-form-urlencoded`.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::PlacementError;
use super::field::parameter_name;
use super::kind::{InjectionTarget, PlacementKind, PlacementOption, RequestPart};
use super::wire_form::{WireForm, distinct};
use crate::value::secret_value::SecretValue;

const OPTIONS: &[PlacementOption] = &[PlacementOption::new(
    "form",
    "NAME",
    "Place the credential in this field of a form body (application/x-www-form-urlencoded, at most 1 MiB). The agent \
     sends its placeholder as the field's value",
)
.edited("Place the credential in this field of a form body; see 'onecli secret add --help'")];

/// The bytes that the serializer of forms escapes (WHATWG URL, section 5.2), and the space.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// A field of a form body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Form {
    /// The field name, unreserved characters only.
    pub name: String,
}

impl Form {
    /// Returns the value as a form contains it: percent-encoded, with `+` for a space.
    pub fn encoded(value: &SecretValue) -> Zeroizing<Vec<u8>> {
        // The capacity suffices, so the vector does not grow, which would leave a copy in memory.
        let mut out = Zeroizing::new(Vec::with_capacity(value.expose().len() * 3));
        for word in value.expose().split_inclusive(|byte| *byte == b' ') {
            let (text, space) = word.strip_suffix(b" ").map_or((word, false), |text| (text, true));
            percent_encode(text, ESCAPED).for_each(|part| out.extend_from_slice(part.as_bytes()));
            out.extend(space.then_some(b'+'));
        }
        out
    }
}

impl PlacementKind for Form {
    fn options() -> &'static [PlacementOption] {
        OPTIONS
    }

    fn parse(_word: &str, name: &str) -> Result<Form, PlacementError> {
        let reason = "is not a form field name: use letters, digits, '-', '.', '_', '~'";
        let name = parameter_name(name).map_err(|_| PlacementError::text(name, reason))?;
        Ok(Form { name })
    }

    fn target(&self) -> InjectionTarget {
        InjectionTarget::Part { kind: "form", name: self.name.clone() }
    }

    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        let sent = WireForm::new(value, Form::encoded(value).as_slice());
        distinct(WireForm::of_url(value).into_iter().chain([sent]))
    }

    fn placeholder_part(&self) -> Option<RequestPart> {
        Some(RequestPart::Body)
    }

    fn place(&self) -> String {
        format!("form:{}", self.name)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "form {}", self.name)
    }
}

/// The serialized form.
#[derive(Deserialize)]
struct Unchecked {
    name: String,
}

impl TryFrom<Unchecked> for Form {
    type Error = PlacementError;

    fn try_from(unchecked: Unchecked) -> Result<Form, PlacementError> {
        Form::parse("", &unchecked.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Placement;

    #[test]
    fn stored_form_round_trips_and_is_validated() {
        let placement = Placement::parse("form", "api_key").unwrap().unwrap();
        let text = serde_json::to_string(&placement).unwrap();
        assert_eq!(text, r#"{"kind":"form","name":"api_key"}"#);
        assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), placement);
        assert_eq!(
            (placement.to_string(), placement.place()),
            ("form api_key".into(), "form:api_key".into())
        );
        for bad in ["", "a=b", "a&b", "a b", "user[key]", "a;b"] {
            assert!(Placement::parse("form", bad).unwrap().is_err(), "{bad}");
            let text = format!(r#"{{"kind":"form","name":"{bad}"}}"#);
            assert!(serde_json::from_str::<Placement>(&text).is_err(), "{bad}");
        }
    }

    #[test]
    fn wire_forms_include_the_sent_text() {
        let value = SecretValue::new(b"pa/ss w+~*".to_vec()).unwrap();
        let forms = Form { name: "key".to_owned() }.wire_forms(&value);
        let texts: Vec<_> =
            forms.iter().map(|form| String::from_utf8_lossy(form.expose()).into_owned()).collect();
        assert_eq!(texts, ["pa/ss w+~*", "pa%2Fss%20w%2B~%2A", "pa%2Fss+w%2B%7E*"]);
        let bytes = SecretValue::new(b"\xff \xfe12345".to_vec()).unwrap();
        assert_eq!(Form::encoded(&bytes).as_slice(), b"%FF+%FE12345");
    }
}
