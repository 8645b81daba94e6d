//! One string of a JSON body, which is found by its path and replaced without a change to any other byte.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use onecli_model::JsonPointer;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// A string in a document.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its range, with the quotes.
    range: Range<usize>,
    /// Its text, with escapes decoded.
    pub(crate) text: String,
}

/// Finds the string at `pointer`. Returns `None` if the document is not JSON or has no string there. Returns `None`
/// also if an object on the path repeats a name, because servers differ about which of the two counts (RFC 8259
/// section 4).
pub(crate) fn find(document: &[u8], pointer: &JsonPointer) -> Option<Field> {
    let text = std::str::from_utf8(document).ok()?;
    let mut raw: &RawValue = serde_json::from_str(text).ok()?;
    for step in pointer.steps() {
        raw = match raw.get().as_bytes().first()? {
            b'{' => member(raw, step)?,
            b'[' => element(raw, step)?,
            _ => return None,
        };
    }
    let value: String = serde_json::from_str(raw.get()).ok()?;
    // The raw value borrows from the document, so the distance of the two pointers is its position.
    let start = (raw.get().as_ptr() as usize).checked_sub(document.as_ptr() as usize)?;
    let range = start..start + raw.get().len();
    (document.get(range.clone())? == raw.get().as_bytes()).then_some(Field { range, text: value })
}

/// Returns the document with another text in the field.
pub(crate) fn put(document: &[u8], field: &Field, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // The capacity suffices if every byte becomes an escape of six bytes. So the vector does not grow, which would
    // leave a copy in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(document.len() + 2 + text.len() * 6));
    out.extend_from_slice(document.get(..field.range.start)?);
    serde_json::to_writer(&mut *out, text).ok()?;
    out.extend_from_slice(document.get(field.range.end..)?);
    Some(out)
}

fn member<'d>(object: &'d RawValue, name: &str) -> Option<&'d RawValue> {
    let members: Members<'d> = serde_json::from_str(object.get()).ok()?;
    members.0.into_iter().find_map(|(own, value)| (own == name).then_some(value))
}

/// Returns an element of an array. An index has no leading zeros (RFC 6901 section 4).
fn element<'d>(array: &'d RawValue, index: &str) -> Option<&'d RawValue> {
    let number: usize = index.parse().ok().filter(|number: &usize| number.to_string() == index)?;
    let mut from = serde_json::Deserializer::from_str(array.get());
    from.deserialize_seq(Element(number)).ok().flatten()
}

/// The members of an object, with unique names.
struct Members<'d>(Vec<(Cow<'d, str>, &'d RawValue)>);

impl<'d> Deserialize<'d> for Members<'d> {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Members<'d>, D::Error> {
        struct Each;

        impl<'d> Visitor<'d> for Each {
            type Value = Members<'d>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Members<'d>, A::Error> {
                let mut members = Vec::new();
                let mut names = HashSet::new();
                while let Some((name, value)) = map.next_entry::<Cow<'d, str>, &'d RawValue>()? {
                    if !names.insert(name.clone()) {
                        return Err(de::Error::custom("an object has a name twice"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Each)
    }
}

struct Element(usize);

impl<'d> Visitor<'d> for Element {
    type Value = Option<&'d RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut seq: A) -> Result<Option<&'d RawValue>, A::Error> {
        for _ in 0..self.0 {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(document: &str, pointer: &str) -> Option<String> {
        find(document.as_bytes(), &pointer.parse().unwrap()).map(|field| field.text)
    }

    #[test]
    fn strings_are_found_by_pointer() {
        let document = r#" {"a": {"b/c": ["x", {"~": "deep"}]}, "n": 1e400, "e": "\u0041\n"} "#;
        assert_eq!(at(document, "/a/b~1c/0").as_deref(), Some("x"));
        assert_eq!(at(document, "/a/b~1c/1/~0").as_deref(), Some("deep"));
        assert_eq!(at(document, "/e").as_deref(), Some("A\n"));
        for none in ["/n", "/a", "/a/b~1c/2", "/a/b~1c/00", "/a/b~1c/-", "/x", "/e/0"] {
            assert_eq!(at(document, none), None, "{none}");
        }
    }

    #[test]
    fn ambiguous_strings_are_not_found() {
        for bad in [
            r#"{"k": "one", "k": "two"}"#,
            r#"{"k": "one", "\u006b": "two"}"#,
            "{\"k\": \"one\"} {\"k\": \"two\"}",
            "{\"k\": \"one\",}",
            "{'k': \"one\"}",
            "\u{feff}{\"k\": \"one\"}",
            "k=one",
            "",
        ] {
            assert_eq!(at(bad, "/k"), None, "{bad}");
        }
        assert_eq!(find(b"{\"k\": \"\xff\"}", &"/k".parse().unwrap()).map(|f| f.text), None);
    }

    #[test]
    fn replacement_changes_no_other_byte() {
        let document = br#"{ "n":1.50, "k" : "\u0050H", "z":[ ] }"#;
        let field = find(document, &"/k".parse().unwrap()).unwrap();
        assert_eq!(field.text, "PH");
        let out = put(document, &field, "a\"b\\c\u{e9}").unwrap();
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "{ \"n\":1.50, \"k\" : \"a\\\"b\\\\c\u{e9}\", \"z\":[ ] }"
        );
    }
}
