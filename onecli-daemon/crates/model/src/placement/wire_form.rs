//! The texts by which a credential can be recognized in a server's response: the value, and each form in which it was
//! sent.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use crate::value::coding::Coding;
use crate::value::secret_value::SecretValue;
use crate::value::value_class::ValueClass;

/// Everything except the unreserved characters (RFC 3986 section 2.3). Values in queries and forms are encoded with
/// it.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One of these texts, in plain text, and the public class of its value. Zeroed when dropped; its `Debug` shows
/// nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct WireForm {
    bytes: Zeroizing<Vec<u8>>,
    class: ValueClass,
    shared: (usize, usize),
}

impl WireForm {
    /// Returns a form of `value` with the value's class.
    pub(super) fn new(value: &SecretValue, bytes: impl Into<Vec<u8>>) -> WireForm {
        WireForm { bytes: Zeroizing::new(bytes.into()), class: ValueClass::of(value), shared: (0, 0) }
    }

    /// Returns the bytes, at least one.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of characters immediately before and after the text that contain bits of both the value and
    /// its neighbours. In base64 this is at most one each.
    pub fn shared(&self) -> (usize, usize) {
        self.shared
    }

    /// Returns the class of the value.
    pub fn class(&self) -> ValueClass {
        self.class
    }

    /// Sets the class of the value. The result also includes the class of the value itself.
    #[must_use]
    pub fn of_class(self, class: ValueClass) -> WireForm {
        WireForm { class: class.or(self.class), ..self }
    }

    /// Returns the forms of a value that is sent unchanged, such as a token in a header field or a signature.
    pub fn plain(value: &SecretValue) -> Vec<WireForm> {
        vec![WireForm::new(value, value.expose())]
    }

    /// Returns the forms of a value that is sent in `application/x-www-form-urlencoded` or in Basic credentials, like
    /// client secrets to token endpoints (RFC 6749 section 2.3.1).
    pub fn of_form(value: &SecretValue) -> Vec<WireForm> {
        let encoded = WireForm::percent_encoded(value);
        let pairs: Vec<WireForm> = WireForm::in_basic(value, encoded.expose()).collect();
        distinct([WireForm::new(value, value.expose()), encoded].into_iter().chain(pairs))
    }

    /// Returns the forms of a value in the base64 text of Basic credentials (RFC 7617), for every user name.
    pub(super) fn of_basic(value: &SecretValue) -> Vec<WireForm> {
        let plain = WireForm::new(value, value.expose());
        distinct(std::iter::once(plain).chain(WireForm::in_basic(value, value.expose())))
    }

    /// Returns the forms of a value in a URL.
    pub(super) fn of_url(value: &SecretValue) -> Vec<WireForm> {
        distinct([WireForm::new(value, value.expose()), WireForm::percent_encoded(value)])
    }

    /// Returns the forms of a value in a JSON string.
    pub(super) fn of_json(value: &SecretValue) -> Vec<WireForm> {
        let plain = WireForm::new(value, value.expose());
        distinct(std::iter::once(plain).chain(WireForm::json_escaped(value)))
    }

    fn percent_encoded(value: &SecretValue) -> WireForm {
        let mut text = Zeroizing::new(String::with_capacity(value.expose().len() * 3));
        text.extend(percent_encode(value.expose(), RESERVED));
        WireForm::new(value, text.as_bytes())
    }

    /// Returns the value as the inside of a JSON string. `None` if it is not UTF-8.
    fn json_escaped(value: &SecretValue) -> Option<WireForm> {
        let text = std::str::from_utf8(value.expose()).ok()?;
        let mut quoted = Zeroizing::new(Vec::with_capacity(2 + text.len() * 6));
        serde_json::to_writer(&mut *quoted, text).ok()?;
        Some(WireForm::new(value, quoted.get(1..quoted.len() - 1)?))
    }

    /// Returns the forms within the base64 text of Basic credentials, for every text before the value.
    fn in_basic(value: &SecretValue, text: &[u8]) -> impl Iterator<Item = WireForm> {
        let class = ValueClass::of(value);
        (0..3).map(move |offset| {
            let core = Coding::BASE64.core(text, offset, (0, 0));
            WireForm { bytes: core.text, class, shared: core.shared }
        })
    }
}

impl fmt::Debug for WireForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireForm(..)")
    }
}

/// Returns the forms without repetitions.
pub(super) fn distinct(forms: impl IntoIterator<Item = WireForm>) -> Vec<WireForm> {
    let mut all: Vec<WireForm> = Vec::new();
    for form in forms {
        if !all.contains(&form) {
            all.push(form);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Placement;

    fn forms(placement: &Placement, value: &str) -> Vec<String> {
        let value = SecretValue::new(value.as_bytes().to_vec()).unwrap();
        let text = |form: &WireForm| String::from_utf8(form.expose().to_vec()).unwrap();
        placement.wire_forms(&value).iter().map(text).collect()
    }

    #[test]
    fn wire_forms_match_each_placement() {
        let at = |location: &str| Placement::replace(location).unwrap();
        let basic = Placement::basic("me").unwrap();
        let sigv4 = Placement::sigv4("*/*", Vec::new()).unwrap();
        let pairs = ["pa/ss\"w+", "cGEvc3Midy", "BhL3NzIncr", "wYS9zcyJ3K"];
        let check = |placement: &Placement, value: &str, expected: &[&str]| {
            assert_eq!(forms(placement, value), expected, "{placement}");
        };
        check(&Placement::bearer(), "pa/ss\"w+", &["pa/ss\"w+"]);
        check(&Placement::header("Authorization: token {secret}").unwrap(), "pa/ss\"w+", &["pa/ss\"w+"]);
        check(&at("header:x-key"), "pa/ss\"w+", &["pa/ss\"w+"]);
        check(&basic, pairs[0], &pairs);
        check(&at("basic"), pairs[0], &pairs);
        check(&Placement::query("key").unwrap(), "pa/ss w+~", &["pa/ss w+~", "pa%2Fss%20w%2B~"]);
        check(&at("query:key"), "plain-value", &["plain-value"]);
        check(&at("json:/a"), "pa/s\"\\w+", &["pa/s\"\\w+", "pa/s\\\"\\\\w+"]);
        check(&sigv4, "AKIDEXAMPLE:secret/key", &[]);
        check(&sigv4, "AKIDEXAMPLE:secret/key:to/ken==", &["to/ken=="]);
    }

    /// For every user name before the value, the sent pair contains one of the forms.
    #[test]
    fn basic_credentials_hold_a_form_for_every_user() {
        let value = "pa/ss\"w+rd";
        let declared = forms(&Placement::basic("me").unwrap(), value);
        for user in ["", "a", "ab", "abc", "someone@example.test"] {
            let sent = data_encoding::BASE64.encode(format!("{user}:{value}").as_bytes());
            assert!(declared.iter().any(|form| sent.contains(form.as_str())), "{user}: {sent}");
        }
    }

    #[test]
    fn wire_forms_of_client_secrets_match_requests() {
        let secret = SecretValue::new(b"s3cret/+value".to_vec()).unwrap();
        let declared: Vec<String> = WireForm::of_form(&secret)
            .iter()
            .map(|f| String::from_utf8(f.expose().to_vec()).unwrap())
            .collect();
        let pair = data_encoding::BASE64.encode(b"client:s3cret%2F%2Bvalue");
        for sent in ["s3cret/+value", "grant=x&client_secret=s3cret%2F%2Bvalue", &pair] {
            assert!(declared.iter().any(|form| sent.contains(form.as_str())), "{sent}");
        }
    }

    #[test]
    fn debug_output_has_no_value() {
        let value = SecretValue::new(b"correct horse".to_vec()).unwrap();
        assert_eq!(format!("{:?}", Placement::bearer().wire_forms(&value)), "[WireForm(..)]");
    }
}
