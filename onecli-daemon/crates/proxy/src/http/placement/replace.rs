//! Replaces a placeholder with its value.

use data_encoding::BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use onecli_model::placement::{PlacementKind as _, Replace};
use onecli_model::{Code, JsonPointer, Placeholder, PlaceholderLocation, RESERVED, Refusal, SecretValue};
use onecli_vault::Credential;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use super::kind::{Inject, NotReplaced, Outgoing, StandIn, StandInTest, test_value};
use crate::http::body::buffer;
use crate::http::fields::names::remove_copies;
use crate::http::placeholders::json;
use crate::http::request::head::{Head, basic_credentials};

impl Inject for Replace {
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal> {
        replace_at(outgoing, &self.at, credential).map_err(|why| why.refusal(&self.place(), credential))
    }

    fn is_body_type(headers: &HeaderMap) -> bool {
        let Some(essence) = buffer::content_type(headers) else { return false };
        let essence = essence.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    }

    fn placeholders_in(&self, body: &[u8]) -> Vec<Placeholder> {
        let PlaceholderLocation::Json(pointer) = &self.at else { return Vec::new() };
        let Some(field) = json::find(body, pointer) else { return Vec::new() };
        Placeholder::find_all(field.text.as_bytes()).collect()
    }

    fn stand_in(&self, head: &mut Head, placeholder: &str, test: &StandInTest<'_>) -> Result<(), Refusal> {
        match &self.at {
            PlaceholderLocation::Header(name) => {
                head.headers.insert(name.clone(), test_value(placeholder.to_owned())?);
            }
            PlaceholderLocation::Basic => {
                let user = test.request.user.as_deref().ok_or_else(|| {
                    Refusal::new(
                        Code::BadRequest,
                        format!("secret '{}' is a password, but it names no user", test.name),
                        "name the user: --user NAME",
                    )
                })?;
                let pair = BASE64.encode(format!("{user}:{placeholder}").as_bytes());
                head.headers.insert(header::AUTHORIZATION, test_value(format!("Basic {pair}"))?);
            }
            PlaceholderLocation::Query(name) => {
                let before = head.query.take().map(|query| format!("{query}&")).unwrap_or_default();
                head.query = Some(format!("{before}{name}={placeholder}"));
            }
            PlaceholderLocation::Json(_) => return Err(test.has_no_body()),
        }
        Ok(())
    }
}

fn replace_at(
    outgoing: &mut Outgoing,
    at: &PlaceholderLocation,
    credential: &Credential,
) -> Result<(), NotReplaced> {
    let (stand_in, value) = (StandIn { forms: credential.stand_in() }, credential.value());
    let head = &mut outgoing.head;
    match at {
        PlaceholderLocation::Header(name) => in_header(&mut head.headers, name, &stand_in, value),
        PlaceholderLocation::Basic => in_basic(&mut head.headers, &stand_in, value),
        PlaceholderLocation::Query(name) => {
            head.query = Some(in_query(head.query.as_deref(), name, &stand_in, value)?);
            Ok(())
        }
        PlaceholderLocation::Json(pointer) => {
            let body = outgoing.body.as_deref().ok_or(NotReplaced::Absent)?;
            outgoing.set_body(in_json(body, pointer, &stand_in, value)?);
            Ok(())
        }
    }
}

/// Replaces it in a header field, anywhere in the value. Copies in other spellings of the name are removed.
fn in_header(
    headers: &mut HeaderMap,
    name: &HeaderName,
    stand_in: &StandIn<'_>,
    value: &SecretValue,
) -> Result<(), NotReplaced> {
    let given = only(headers, name)?;
    let real = stand_in.replace(given.as_bytes(), value.expose()).ok_or(NotReplaced::Absent)?;
    set(headers, name, &real)
}

/// Replaces it in the user name or the password of Basic credentials.
pub(crate) fn in_basic(
    headers: &mut HeaderMap,
    stand_in: &StandIn<'_>,
    value: &SecretValue,
) -> Result<(), NotReplaced> {
    let given = only(headers, &header::AUTHORIZATION)?;
    let (user, password) = basic_credentials(&given).ok_or(NotReplaced::Absent)?;
    let real_user = stand_in.replace(&user, value.expose());
    let real_password = stand_in.replace(&password, value.expose());
    if real_user.is_none() && real_password.is_none() {
        return Err(NotReplaced::Absent);
    }
    // The first colon ends the user name (RFC 7617 section 2).
    if real_user.as_ref().is_some_and(|user| user.contains(&b':')) {
        return Err(NotReplaced::Unusable);
    }
    let (user, password) = (real_user.unwrap_or(user.into()), real_password.unwrap_or(password.into()));
    let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
    pair.extend_from_slice(&user);
    pair.push(b':');
    pair.extend_from_slice(&password);
    let text = Zeroizing::new(format!("Basic {}", data_encoding::BASE64.encode(&pair)));
    set(headers, &header::AUTHORIZATION, text.as_bytes())
}

/// Replaces it in the value of a query parameter.
pub(crate) fn in_query(
    query: Option<&str>,
    name: &str,
    stand_in: &StandIn<'_>,
    value: &SecretValue,
) -> Result<String, NotReplaced> {
    let is_named = |pair: &str| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        percent_decode_str(key).decode_utf8_lossy() == name
    };
    let pairs: Vec<&str> = query.unwrap_or_default().split('&').collect();
    // Some servers also separate parameters with `;`, so another parameter of that name must not hide after it.
    let named: Vec<usize> = (0..pairs.len()).filter(|at| pairs[*at].split(';').any(is_named)).collect();
    let at = match named.as_slice() {
        [] => return Err(NotReplaced::Absent),
        [at] => *at,
        _ => return Err(NotReplaced::Repeated),
    };
    // Within another parameter's value, or before a `;`, servers disagree about where it begins and ends.
    if pairs[at].contains(';') {
        return Err(NotReplaced::Repeated);
    }
    let (key, given) = pairs[at].split_once('=').ok_or(NotReplaced::Absent)?;
    let given: Vec<u8> = percent_decode_str(given).collect();
    let real = stand_in.replace(&given, value.expose()).ok_or(NotReplaced::Absent)?;
    let real = std::str::from_utf8(&real).map_err(|_| NotReplaced::Unusable)?;
    let mut out = String::new();
    for (index, pair) in pairs.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        if index == at {
            out.push_str(key);
            out.push('=');
            out.extend(utf8_percent_encode(real, RESERVED));
        } else {
            out.push_str(pair);
        }
    }
    Ok(out)
}

/// Replaces it in a string of a JSON body.
pub(crate) fn in_json(
    body: &[u8],
    pointer: &JsonPointer,
    stand_in: &StandIn<'_>,
    value: &SecretValue,
) -> Result<Zeroizing<Vec<u8>>, NotReplaced> {
    let field = json::find(body, pointer).ok_or(NotReplaced::Absent)?;
    let real = stand_in.replace(field.text.as_bytes(), value.expose()).ok_or(NotReplaced::Absent)?;
    let real = std::str::from_utf8(&real).map_err(|_| NotReplaced::Unusable)?;
    json::put(body, &field, real).ok_or(NotReplaced::Unusable)
}

/// Returns the only field of that name. Cookies, which HTTP/2 may split (RFC 9113 section 8.2.3), are joined.
fn only(headers: &HeaderMap, name: &HeaderName) -> Result<HeaderValue, NotReplaced> {
    let given: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    match given.as_slice() {
        [] => Err(NotReplaced::Absent),
        [one] => Ok((*one).clone()),
        several if *name == header::COOKIE => {
            let joined = several.iter().map(|value| value.as_bytes()).collect::<Vec<_>>().join(&b"; "[..]);
            HeaderValue::from_bytes(&joined).map_err(|_| NotReplaced::Unusable)
        }
        _ => Err(NotReplaced::Repeated),
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &[u8]) -> Result<(), NotReplaced> {
    let mut real = HeaderValue::from_bytes(value).map_err(|_| NotReplaced::Unusable)?;
    real.set_sensitive(true);
    remove_copies(headers, name);
    headers.insert(name, real);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = b"re&al \"value\"/+";

    fn forms() -> [String; 2] {
        ["sk-PLACE".to_owned(), "PLACE".to_owned()]
    }

    fn value() -> SecretValue {
        SecretValue::new(VALUE.to_vec()).unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn placeholder_in_header_is_replaced_in_place() {
        let check = |fields: &[(&'static str, &str)], expected: Result<&str, NotReplaced>| {
            let mut headers = headers(fields);
            let name = HeaderName::from_static("x-key");
            let done = in_header(&mut headers, &name, &StandIn { forms: &forms() }, &value());
            let got = done.map(|()| {
                assert_eq!(headers.get_all(&name).iter().count(), 1);
                assert!(!headers.contains_key("x_key"));
                headers["x-key"].to_str().unwrap().to_owned()
            });
            assert_eq!(got.as_deref().map_err(|e| *e), expected, "{fields:?}");
        };
        let real = std::str::from_utf8(VALUE).unwrap();
        check(&[("x-key", "sk-PLACE"), ("x_key", "sk-PLACE")], Ok(real));
        check(&[("x-key", "id=1, key=\"PLACE\"")], Ok(&format!("id=1, key=\"{real}\"")));
        check(&[("x-key", "other")], Err(NotReplaced::Absent));
        check(&[("x_key", "PLACE")], Err(NotReplaced::Absent));
        check(&[("x-key", "a"), ("x-key", "PLACE")], Err(NotReplaced::Repeated));
        let mut cookies = headers(&[("cookie", "a=1"), ("cookie", "t=PLACE")]);
        in_header(&mut cookies, &header::COOKIE, &StandIn { forms: &forms() }, &value()).unwrap();
        assert_eq!(cookies["cookie"].to_str().unwrap(), format!("a=1; t={real}"));
    }

    #[test]
    fn placeholder_in_basic_credentials_is_replaced() {
        let check = |pair: &str, value: &str, expected: Result<&str, NotReplaced>| {
            let given = format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));
            let mut headers = headers(&[("authorization", &given)]);
            let value = SecretValue::new(value.as_bytes().to_vec()).unwrap();
            let done = in_basic(&mut headers, &StandIn { forms: &forms() }, &value);
            let got = done.map(|()| {
                let (user, password) = basic_credentials(&headers["authorization"]).unwrap();
                String::from_utf8([&user[..], b"|", &password[..]].concat()).unwrap()
            });
            assert_eq!(got.as_deref().map_err(|e| *e), expected, "{pair}");
        };
        check("me@x.test:sk-PLACE", "12345678:9", Ok("me@x.test|12345678:9"));
        check("sk-PLACE:", "12345678", Ok("12345678|"));
        check("PLACE:x", "1234:5678", Err(NotReplaced::Unusable));
        check("a:b", "12345678", Err(NotReplaced::Absent));
    }

    #[test]
    fn placeholder_in_query_is_replaced_and_encoded() {
        let check = |query: Option<&str>, expected: Result<&str, NotReplaced>| {
            let got = in_query(query, "key", &StandIn { forms: &forms() }, &value());
            assert_eq!(got.as_deref().map_err(|e| *e), expected, "{query:?}");
        };
        check(Some("a=1&key=sk-PLACE&b=2"), Ok("a=1&key=re%26al%20%22value%22%2F%2B&b=2"));
        check(Some("%6bey=x-PLAC%45"), Ok("%6bey=x-re%26al%20%22value%22%2F%2B"));
        check(Some("key=PLACE&key=PLACE"), Err(NotReplaced::Repeated));
        check(Some("key=PLACE&a=1;key=2"), Err(NotReplaced::Repeated));
        check(Some("other=PLACE"), Err(NotReplaced::Absent));
        check(Some("key=1"), Err(NotReplaced::Absent));
        check(Some("callback=https://evil.test/?x=1;key=PLACE"), Err(NotReplaced::Repeated));
        check(Some("key=PLACE;a=1"), Err(NotReplaced::Repeated));
        check(None, Err(NotReplaced::Absent));
    }
}
