//! Texts in which denials search for words: checks that they can be read as the server reads them.

use http::header::{self, HeaderMap};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::reading::Reading;
use super::unescape::{unescaped, without_json_escapes};

/// The reason why the server may read a text differently from this program, although a denial depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableText {
    /// There is more than one Content-Type, or one whose bodies are not searched: multipart, or not text.
    #[error("a body with this Content-Type is not supported")]
    Kind,
    /// The text is not UTF-8, or contains null characters, as UTF-16 does.
    #[error("the body is not UTF-8 text")]
    NotUtf8,
    /// The text is neither JSON nor a form with the members of a GraphQL request.
    #[error("the body is not a GraphQL request")]
    NotGraphQl,
    /// The request names a document stored at the server, by a digest or an identifier.
    #[error("the request names a GraphQL document that is stored at the server")]
    Stored,
}

/// Members of a GraphQL request, in lower case ("GraphQL over HTTP" of the GraphQL Foundation, section 5.1).
const MEMBERS: [&str; 4] = ["query", "operationname", "variables", "extensions"];

/// Parameters that name a stored document, in lower case: Apollo, Relay, Hot Chocolate, the "persisted documents" of
/// "GraphQL over HTTP".
const STORED: [&str; 11] = [
    "persistedquery",
    "documentid",
    "document_id",
    "docid",
    "doc_id",
    "queryid",
    "query_id",
    "operationid",
    "id",
    "hash",
    "sha256hash",
];

/// Checks that a body can be searched for words as the server reads it. Time is linear in the body, and memory does
/// not depend on its nesting.
///
/// # Errors
/// [`UnreadableText`].
pub fn check_text(reading: Reading, headers: &HeaderMap, body: &[u8]) -> Result<(), UnreadableText> {
    if reading < Reading::Text || body.is_empty() {
        return Ok(());
    }
    let kind = Kind::of(headers).ok_or(UnreadableText::Kind)?;
    let text = std::str::from_utf8(body).ok().filter(|text| !text.contains('\0'));
    let text = text.ok_or(UnreadableText::NotUtf8)?;
    if reading < Reading::GraphQl || kind == Kind::Document {
        return Ok(());
    }
    match serde_json::from_str::<Requests>(text.trim_start_matches('\u{feff}')) {
        // Some clients send JSON as a form by mistake, and servers read it as either.
        Ok(_) if kind == Kind::Form => refuse_stored(text),
        Ok(_) => Ok(()),
        Err(error) if error.is_data() => Err(UnreadableText::Stored),
        Err(_) if kind == Kind::Form => check_form(text),
        Err(_) => Err(UnreadableText::NotGraphQl),
    }
}

/// Refuses a URL query or a form that names a stored document.
///
/// # Errors
/// [`UnreadableText::Stored`].
pub(super) fn refuse_stored(form: &str) -> Result<(), UnreadableText> {
    let is_stored = |(name, value): (String, String)| {
        STORED.contains(&name.as_str()) || (name == "extensions" && value.contains("persisted"))
    };
    if pairs(form).any(is_stored) { Err(UnreadableText::Stored) } else { Ok(()) }
}

/// Checks that a form has only the members of a GraphQL request.
fn check_form(form: &str) -> Result<(), UnreadableText> {
    refuse_stored(form)?;
    let mut names = pairs(form).map(|(name, _)| name).filter(|name| !name.is_empty()).peekable();
    let is_request = names.peek().is_some() && names.all(|name| MEMBERS.contains(&name.as_str()));
    if is_request { Ok(()) } else { Err(UnreadableText::NotGraphQl) }
}

/// Returns names and values in lower case, without escapes, including those of JSON.
fn pairs(form: &str) -> impl Iterator<Item = (String, String)> {
    form.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value: Vec<u8> = percent_decode_str(value).collect();
        (unescaped(name.as_bytes()), String::from_utf8_lossy(&without_json_escapes(&value)).into_owned())
    })
}

/// The kind of a body according to its Content-Type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// JSON, plain text, or no Content-Type.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/graphql`: only the document.
    Document,
}

impl Kind {
    /// Returns `None` for a kind that is not read.
    fn of(headers: &HeaderMap) -> Option<Kind> {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let (first, second) = (values.next(), values.next());
        if second.is_some() {
            return None;
        }
        let Some(first) = first else { return Some(Kind::Json) };
        let text = first.to_str().ok()?.to_ascii_lowercase();
        let kind = text.split(';').next().unwrap_or_default().trim();
        match kind {
            "application/x-www-form-urlencoded" => Some(Kind::Form),
            "application/graphql" => Some(Kind::Document),
            "" | "application/json" | "text/plain" | "text/json" => Some(Kind::Json),
            kind => kind.ends_with("+json").then_some(Kind::Json),
        }
    }
}

/// One request or a batch.
struct Requests;

impl<'de> Deserialize<'de> for Requests {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Requests, D::Error> {
        from.deserialize_any(RequestsVisitor)
    }
}

struct RequestsVisitor;

impl<'de> Visitor<'de> for RequestsVisitor {
    type Value = Requests;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a GraphQL request or a list of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Requests, A::Error> {
        while all.next_element::<Request>()?.is_some() {}
        Ok(Requests)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Requests, A::Error> {
        RequestVisitor.visit_map(members).map(|Request| Requests)
    }
}

/// One request with a document, and without members that could name another.
struct Request;

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Request, D::Error> {
        from.deserialize_map(RequestVisitor)
    }
}

struct RequestVisitor;

impl<'de> Visitor<'de> for RequestVisitor {
    type Value = Request;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a GraphQL request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Request, A::Error> {
        let mut has_document = false;
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "query" => has_document |= !members.next_value::<String>()?.trim().is_empty(),
                "extensions" => {
                    members.next_value::<Option<Extensions>>()?;
                }
                "variables" | "operationName" => {
                    members.next_value::<IgnoredAny>()?;
                }
                _ => return Err(A::Error::custom("another member")),
            }
        }
        if has_document { Ok(Request) } else { Err(A::Error::custom("no document")) }
    }
}

/// Extensions without a persisted query.
struct Extensions;

impl<'de> Deserialize<'de> for Extensions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Extensions, D::Error> {
        from.deserialize_map(ExtensionsVisitor)
    }
}

struct ExtensionsVisitor;

impl<'de> Visitor<'de> for ExtensionsVisitor {
    type Value = Extensions;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("extensions of a GraphQL request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Extensions, A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            if name.to_ascii_lowercase().contains("persisted") {
                return Err(A::Error::custom("a persisted query"));
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(Extensions)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use UnreadableText::{Kind as WrongKind, NotGraphQl, NotUtf8, Stored};

    const OK: Result<(), UnreadableText> = Ok(());

    fn check(reading: Reading, kind: &str, body: impl AsRef<[u8]>, expected: Result<(), UnreadableText>) {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        }
        let body = body.as_ref();
        let text = String::from_utf8_lossy(body);
        assert_eq!(check_text(reading, &headers, body), expected, "{reading:?} {kind} {text}");
    }

    #[test]
    fn graphql_requests_are_read() {
        let json = |body: &str, expected| check(Reading::GraphQl, "application/json", body, expected);
        json(r#"{"query":"{a}"}"#, OK);
        json(r#"{"query":"{a}","variables":{"id":1},"operationName":null,"extensions":{"x":[]}}"#, OK);
        json(r#"[{"query":"{a}"},{"query":"{b}"}]"#, OK);
        json("\u{feff}{\"query\":\"{a}\"}", OK);
        json(r#"{"extensions":{"persistedQuery":{"sha256Hash":"0"}}}"#, Err(Stored));
        json(r#"{"query":"{a}","extensions":{"persisted\u0051uery":{}}}"#, Err(Stored));
        json(r#"{"documentId":"x"}"#, Err(Stored));
        json(r#"{"query":"{a}","id":"x"}"#, Err(Stored));
        json(r#"{"query":""}"#, Err(Stored));
        json(r#"[{"query":"{a}"},{"doc_id":"1"}]"#, Err(Stored));
        json("{'query':'{a}'}", Err(NotGraphQl));
        json("", OK);
        check(Reading::GraphQl, "", r#"{"query":"{a}"}"#, OK);
        check(Reading::GraphQl, "application/graphql", "{a}", OK);
        let form = |body: &str, expected| {
            check(Reading::GraphQl, "application/x-www-form-urlencoded", body, expected);
        };
        form("query={a}&variables={}", OK);
        form(r#"{"query":"{a}"}"#, OK);
        form(r#"{"query":"{a}","variables":{"a":"&documentId=1&"}}"#, Err(Stored));
        form("query={a}&id=1", Err(Stored));
        form("extensions=%7B%22persisted%51uery%22:1%7D", Err(Stored));
        form("operations={}", Err(NotGraphQl));
    }

    #[test]
    fn other_texts_are_refused() {
        let wide: Vec<u8> = "{\"query\":\"{a}\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for reading in [Reading::Text, Reading::GraphQl] {
            check(reading, "application/json", &wide, Err(NotUtf8));
            check(reading, "application/json", b"\xff{}", Err(NotUtf8));
            check(reading, "multipart/form-data; boundary=x", "--x--", Err(WrongKind));
            check(reading, "application/x-protobuf", "a", Err(WrongKind));
            check(reading, "application/yaml", "a", Err(WrongKind));
        }
        check(Reading::Text, "application/json", r#"{"items":[{"key":"a"}]}"#, OK);
        check(Reading::Form, "multipart/form-data", b"\xff", OK);
        let twice = ["application/json", "application/x-www-form-urlencoded"];
        let mut all = HeaderMap::new();
        for kind in twice {
            all.append(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        assert_eq!(check_text(Reading::Text, &all, b"{}"), Err(WrongKind));
    }

    #[test]
    fn stored_documents_are_refused_in_queries() {
        let check = |query: &str, expected: bool| {
            assert_eq!(refuse_stored(query).is_err(), expected, "{query}");
        };
        check("query={a}&variables={}", false);
        check("documentId=1", true);
        check("document%49d=1", true);
        check("extensions=%7B%22persistedQuery%22%3A%7B%7D%7D", true);
        check("extensions=%7B%22persisted%5Cu0051uery%22%3A%7B%7D%7D", true);
    }
}
