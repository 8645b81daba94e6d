//! Places a credential in a segment of the URL path.
//!
//! Policy has judged the path with the placeholder. So the path with the value must be the same path in every reading,
//! but for this one segment.

use http::header;
use onecli_model::placement::{PlacementKind as _, Segment};
use onecli_model::{CanonicalPath, Code, Refusal};
use onecli_vault::Credential;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::kind::{Inject, NotReplaced, Outgoing, StandInTest};
use crate::http::fields::names::remove_copies;
use crate::http::request::head::Head;

/// The marker of templates, in place of a placeholder.
const MARKER: &str = "{secret}";

impl Inject for Segment {
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal> {
        let head = &mut outgoing.head;
        refuse_ambiguous(&head.path)?;
        let replaced = replaced(&head.path, self, credential.stand_in(), credential.value().expose());
        head.path = replaced.map_err(|why| why.refusal(&self.place(), credential))?;
        // It may contain the path of an earlier request. The service knows that path with the value only.
        remove_copies(&mut head.headers, &header::REFERER);
        Ok(())
    }

    fn stand_in(&self, head: &mut Head, placeholder: &str, test: &StandInTest<'_>) -> Result<(), Refusal> {
        refuse_ambiguous(&head.path)?;
        let marked = replaced(&head.path, self, &[MARKER.to_owned()], placeholder.as_bytes());
        head.path = marked.map_err(|_| {
            Refusal::new(
                Code::BadRequest,
                format!(
                    "secret '{}' is placed in the path, but the path has no segment {}",
                    test.name, self.template
                ),
                format!("name the path with {MARKER}: --path '/{}/...'", self.template),
            )
        })?;
        Ok(())
    }
}

/// Refuses a path that servers read in different ways, whatever the secret's patterns are.
fn refuse_ambiguous(path: &CanonicalPath) -> Result<(), Refusal> {
    let Some(ambiguity) = path.ambiguity() else { return Ok(()) };
    Err(Refusal::new(
        Code::PathAmbiguous,
        format!("the path contains {ambiguity}, which servers interpret differently"),
        "send the path in its plain form",
    ))
}

/// Returns the path with `value` in the only segment that has one of the `forms`, which must fill the template.
fn replaced(
    path: &CanonicalPath,
    segment: &Segment,
    forms: &[String],
    value: &[u8],
) -> Result<CanonicalPath, NotReplaced> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let segments: Vec<&str> = path.segments().collect();
    let has_form = |at: &usize| forms.iter().any(|form| decoded(segments[*at]).contains(form.as_str()));
    let mut found = (0..segments.len()).filter(has_form);
    let at = match (found.next(), found.next()) {
        (None, _) => return Err(NotReplaced::Absent),
        (Some(at), None) => at,
        _ => return Err(NotReplaced::Repeated),
    };
    let (before, after) = segment.template.parts();
    if !forms.iter().any(|form| decoded(segments[at]) == format!("{before}{form}{after}")) {
        return Err(NotReplaced::Absent);
    }
    let real = segment.with(value).ok_or(NotReplaced::Unusable)?;
    let new = [&segments[..at], &[real.as_str()], &segments[at + 1..]].concat();
    let text = Zeroizing::new(format!("/{}", new.join("/")));
    let path = CanonicalPath::parse(&text).map_err(|_| NotReplaced::Unusable)?;
    let is_same = path.ambiguity().is_none() && path.segments().eq(new.iter().copied());
    if is_same { Ok(path) } else { Err(NotReplaced::Unusable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "110201543:AAH-x_~";

    fn place(template: &str, path: &str, value: &str) -> Result<String, NotReplaced> {
        let forms = ["1000:onecli_ph_x".to_owned(), "onecli_ph_x".to_owned()];
        let segment = Segment::parse("segment", template).unwrap();
        let path = CanonicalPath::parse(path).unwrap();
        replaced(&path, &segment, &forms, value.as_bytes()).map(|path| path.to_string())
    }

    #[test]
    fn exactly_one_segment_changes() {
        let check = |path: &str, expected: &str| {
            assert_eq!(place("bot{secret}", path, VALUE).as_deref(), Ok(expected), "{path}");
        };
        check("/botonecli_ph_x/getMe", "/bot110201543:AAH-x_~/getMe");
        check("/bot1000:onecli_ph_x/getMe", "/bot110201543:AAH-x_~/getMe");
        check("/bot1000%3aonecli_ph_x/", "/bot110201543:AAH-x_~/");
        check("/file/bot%6fnecli_ph_x/a%20b/c", "/file/bot110201543:AAH-x_~/a%20b/c");
        assert_eq!(place("{secret}", "/x/onecli_ph_x", VALUE).as_deref(), Ok("/x/110201543:AAH-x_~"));
    }

    #[test]
    fn other_positions_are_refused() {
        let check = |path: &str, expected: NotReplaced| {
            assert_eq!(place("bot{secret}", path, VALUE), Err(expected), "{path}");
        };
        for path in
            ["/", "/getMe", "/onecli_ph_x/getMe", "/xbotonecli_ph_x", "/botonecli_ph_xx", "/bot2:onecli_ph_x"]
        {
            check(path, NotReplaced::Absent);
        }
        for path in [
            "/botonecli_ph_x/botonecli_ph_x",
            "/botonecli_ph_x/onecli_ph_x",
            "/a-onecli%5fph_x/botonecli_ph_x",
        ] {
            check(path, NotReplaced::Repeated);
        }
    }

    /// A value from an external source is not checked when the secret is added.
    #[test]
    fn values_that_change_the_path_are_refused() {
        for value in ["a/b", "a?b", "a#b", "a%2Fb", "a;b", "", "a b", "é"] {
            assert_eq!(
                place("bot{secret}", "/botonecli_ph_x/a", value),
                Err(NotReplaced::Unusable),
                "{value}"
            );
        }
        for value in [".", "..", "..."] {
            assert_eq!(place("{secret}", "/onecli_ph_x/a", value), Err(NotReplaced::Unusable), "{value}");
        }
        assert_eq!(place("bot{secret}", "/botonecli_ph_x", &"a".repeat(20_000)), Err(NotReplaced::Unusable));
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "/botonecli_ph_x/../a",
            "/a/%2e%2e/botonecli_ph_x",
            "/botonecli_ph_x%2Fa",
            "//botonecli_ph_x",
            "/botonecli_ph_x;a",
            "/botonecli_ph_x/a%3fb",
            "/botonecli_ph_x/%252f",
        ] {
            assert!(refuse_ambiguous(&CanonicalPath::parse(path).unwrap()).is_err(), "{path}");
        }
    }
}
