//! Responses whose fields the query sets, in hexadecimal: `cookie=HEX` for each `Set-Cookie` field, `header=HEX` for
//! each `NAME: VALUE`.

use data_encoding::HEXLOWER;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The values of every parameter of this name.
pub(super) fn all(query: &str, name: &str) -> Vec<Vec<u8>> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, _)| *key == name)
        .map(|(_, hex)| HEXLOWER.decode(hex.as_bytes()).expect("hex"))
        .collect()
}

/// Adds the fields that the query names.
pub(super) fn add(query: Option<&str>, fields: &mut HeaderMap) {
    let query = query.unwrap_or_default();
    for cookie in all(query, "cookie") {
        fields.append(header::SET_COOKIE, HeaderValue::from_bytes(&cookie).expect("a field value"));
    }
    for field in all(query, "header") {
        let text = String::from_utf8(field).expect("text");
        let (name, value) = text.split_once(": ").expect("NAME: VALUE");
        fields
            .append(HeaderName::try_from(name).expect("a field name"), value.parse().expect("a field value"));
    }
}
