//! Places a credential in a field of a form body (WHATWG URL, section 5).
//!
//! The body must have exactly one field of the name, with the agent's placeholder as its value. Servers disagree about
//! a second one, also in the query and in spellings that some frameworks read as the same name.

use std::borrow::Cow;

use http::HeaderMap;
use onecli_model::placement::{Form, PlacementKind as _};
use onecli_model::{Placeholder, Refusal, SecretValue};
use onecli_vault::Credential;
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::kind::{Inject, NotReplaced, Outgoing, StandIn, StandInTest};
use crate::http::body::buffer;
use crate::http::request::head::Head;

const TYPE: &str = "application/x-www-form-urlencoded";

impl Inject for Form {
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal> {
        let stand_in = StandIn { forms: credential.stand_in() };
        let query = outgoing.head.query.as_deref().unwrap_or_default().as_bytes();
        let body = match outgoing.body.as_deref() {
            _ if parameters(query).any(|pair| may_be_named(pair, &self.name)) => Err(NotReplaced::Repeated),
            Some(body) => set_field(body, &self.name, &stand_in, credential.value()),
            None => Err(NotReplaced::Absent),
        };
        outgoing.set_body(body.map_err(|why| why.refusal(&self.place(), credential))?);
        Ok(())
    }

    /// Another charset than UTF-8 is another reading of the fields.
    fn is_body_type(headers: &HeaderMap) -> bool {
        let Some(text) = buffer::content_type(headers) else { return false };
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let parameters = parameters.trim().trim_end_matches(';').trim_end();
        let is_utf8 = || {
            let charset = parameters.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
            charset.is_some_and(|(_, value)| value.trim_matches('"').eq_ignore_ascii_case("utf-8"))
        };
        essence.trim().eq_ignore_ascii_case(TYPE) && (parameters.is_empty() || is_utf8())
    }

    fn placeholders_in(&self, body: &[u8]) -> Vec<Placeholder> {
        let named = parameters(body).filter(|pair| may_be_named(pair, &self.name));
        named.flat_map(|pair| Placeholder::find_all(&decoded(split(pair).1)).collect::<Vec<_>>()).collect()
    }

    fn stand_in(&self, _head: &mut Head, _placeholder: &str, test: &StandInTest<'_>) -> Result<(), Refusal> {
        Err(test.has_no_body())
    }
}

/// Returns the body with the value in the only field of this name.
pub(crate) fn set_field(
    body: &[u8],
    name: &str,
    stand_in: &StandIn<'_>,
    value: &SecretValue,
) -> Result<Zeroizing<Vec<u8>>, NotReplaced> {
    let mut named = parameters(body).filter(|pair| may_be_named(pair, name));
    let pair = match (named.next(), named.next()) {
        (None, _) => return Err(NotReplaced::Absent),
        (Some(pair), None) => pair,
        _ => return Err(NotReplaced::Repeated),
    };
    let (key, given) = split(pair);
    // The distance of the two pointers is the position, because the pair borrows from the body.
    let at = (key.as_ptr() as usize).checked_sub(body.as_ptr() as usize).ok_or(NotReplaced::Absent)?;
    let is_whole = |end: Option<&u8>| end.is_none_or(|byte| *byte == b'&');
    let before = at.checked_sub(1).map(|before| &body[before]);
    // Beside a `;`, servers disagree about where the field begins and ends.
    if *decoded(key) != *name.as_bytes() || !is_whole(before) || !is_whole(body.get(at + pair.len())) {
        return Err(NotReplaced::Repeated);
    }
    if !stand_in.forms.iter().any(|form| *form.as_bytes() == *decoded(given)) {
        return Err(NotReplaced::Absent);
    }
    let (start, end) = (at + key.len() + 1, at + pair.len());
    let encoded = Form::encoded(value);
    // The capacity suffices, so the vector does not grow, which would leave a copy in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() + encoded.len()));
    out.extend_from_slice(&body[..start]);
    out.extend_from_slice(&encoded);
    out.extend_from_slice(&body[end..]);
    Ok(out)
}

/// Splits a body or a query. Some servers also separate with `;`, so a field must not hide after it.
fn parameters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'&' | b';'))
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    let end = pair.iter().position(|byte| *byte == b'=');
    end.map_or((pair, &[]), |end| (&pair[..end], &pair[end + 1..]))
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// Returns whether some server reads the pair as a field of this name. PHP drops leading spaces, replaces `.` and space
/// by `_`, and reads `a[b]` as a part of `a`. ASP.NET ignores case.
fn may_be_named(pair: &[u8], name: &str) -> bool {
    let key = decoded(split(pair).0);
    let key = key.trim_ascii_start().split(|byte| matches!(byte, b'[' | 0)).next().unwrap_or_default();
    let fold = |byte: &u8| if matches!(byte, b'.' | b' ') { b'_' } else { byte.to_ascii_lowercase() };
    key.len() == name.len() && key.iter().map(fold).eq(name.as_bytes().iter().map(fold))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;

    fn set(body: &str) -> Result<String, NotReplaced> {
        let forms = ["sk-PLACE".to_owned(), "PLACE".to_owned()];
        let value = SecretValue::new(b"re&al v=+/~".to_vec()).unwrap();
        let set = set_field(body.as_bytes(), "api_key", &StandIn { forms: &forms }, &value)?;
        Ok(String::from_utf8(set.to_vec()).unwrap())
    }

    #[test]
    fn only_the_value_of_the_field_changes() {
        let check = |body: &str, expected: &str| assert_eq!(set(body).as_deref(), Ok(expected), "{body}");
        check("api_key=PLACE", "api_key=re%26al+v%3D%2B%2F%7E");
        check("a=%zz&api_key=sk-PLACE&&b", "a=%zz&api_key=re%26al+v%3D%2B%2F%7E&&b");
        check("%61pi_key=PLAC%45&api_key2=PLACE", "%61pi_key=re%26al+v%3D%2B%2F%7E&api_key2=PLACE");
    }

    #[test]
    fn ambiguous_bodies_are_refused() {
        let check = |body: &str, expected: NotReplaced| assert_eq!(set(body), Err(expected), "{body}");
        for again in [
            "api_key=PLACE",
            "api_key=",
            "api_key",
            "api%5Fkey=x",
            "API_KEY=x",
            "api.key=x",
            "api+key=x",
            "+api_key=x",
            "%20api_key=x",
            "api_key[]=x",
            "api_key%5Ba%5D=x",
            "api_key%00=x",
            "a=1;api_key=x",
        ] {
            check(&format!("api_key=PLACE&{again}"), NotReplaced::Repeated);
            check(&format!("{again}&api_key=PLACE"), NotReplaced::Repeated);
        }
        for body in ["a=1;api_key=PLACE", "api_key=PLACE;a=1", "api.key=PLACE", "api_key[]=PLACE"] {
            check(body, NotReplaced::Repeated);
        }
        for body in [
            "",
            "a=PLACE",
            "api_key=other",
            "api_key=PLACE1",
            "api_key=x+PLACE",
            "api_key",
            "api_key=PLACE\r\n",
        ] {
            check(body, NotReplaced::Absent);
        }
    }

    #[test]
    fn content_type_must_be_a_form_in_utf8() {
        let check = |types: &[&'static str], expected: bool| {
            let types = types.iter().map(|one| (CONTENT_TYPE, HeaderValue::from_static(one)));
            let mut headers = HeaderMap::new();
            types.for_each(|(name, value)| _ = headers.append(name, value));
            assert_eq!(Form::is_body_type(&headers), expected, "{headers:?}");
        };
        check(&["application/x-www-form-urlencoded"], true);
        check(&["Application/X-WWW-Form-Urlencoded ; charset=\"UTF-8\""], true);
        check(&["application/x-www-form-urlencoded; charset=utf-16"], false);
        check(&["application/x-www-form-urlencoded; charset=utf-8; charset=utf-16"], false);
        check(&["application/x-www-form-urlencoded; boundary=x"], false);
        check(&["application/x-www-form-urlencoded", "application/x-www-form-urlencoded"], false);
        check(&["application/json"], false);
        check(&["multipart/form-data; boundary=x"], false);
        check(&[], false);
    }

    #[test]
    fn placeholders_in_other_fields_do_not_count() {
        let placeholder = Placeholder::from_bits([7; 20]);
        let found = |body: String| Form { name: "key".to_owned() }.placeholders_in(body.as_bytes());
        assert_eq!(found(format!("a=1&key={placeholder}")), std::slice::from_ref(&placeholder));
        assert_eq!(found(format!("a={placeholder}&key=1")), []);
        assert_eq!(found(format!("a[key]={placeholder}")), []);
    }
}
