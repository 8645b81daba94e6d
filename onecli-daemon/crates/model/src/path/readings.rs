//! The ways in which servers may read a path. Built once for a decision, and shared by all patterns that match the
//! path.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use super::ambiguity::Ambiguity;
use super::fold::{DECODINGS, decode, expanded, fold, fold_expanded};
use super::{CanonicalPath, ambiguity_of};

/// Characters at which a server may cut off a decoded path.
const ENDS: [char; 3] = ['?', '#', '\0'];
/// Characters that separate segments for some server.
const SEPARATORS: [char; 2] = ['/', '\\'];

/// A path with the ways in which servers read it. Each is computed at its first use, in time linear in the path.
///
/// A value lives as long as one decision. At the limits of a path, all readings take about 1 MiB.
#[derive(Debug)]
pub struct PathReadings<'p> {
    path: &'p CanonicalPath,
    opaque: OnceCell<bool>,
    plain: OnceCell<Segments<'p>>,
    spellings: OnceCell<Vec<Segments<'p>>>,
    lenient: OnceCell<Vec<Segments<'p>>>,
}

impl<'p> PathReadings<'p> {
    /// Returns the readings of `path`.
    pub fn new(path: &'p CanonicalPath) -> PathReadings<'p> {
        PathReadings {
            path,
            opaque: OnceCell::new(),
            plain: OnceCell::new(),
            spellings: OnceCell::new(),
            lenient: OnceCell::new(),
        }
    }

    /// Returns the path itself.
    pub fn path(&self) -> &'p CanonicalPath {
        self.path
    }

    /// Returns the reason why servers may disagree about the path; `None` if they agree.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.path.ambiguity
    }

    /// Returns whether servers may disagree only about `%2F`. The decoded path must have no ambiguity.
    pub fn is_plain_but_for_encoded_slashes(&self) -> bool {
        let decoded = || ambiguity_of(&self.path.text.replace("%2F", "/")).is_none();
        *self.opaque.get_or_init(|| self.ambiguity().is_none() || decoded())
    }

    /// Returns the segments as they are forwarded.
    pub(crate) fn plain(&self) -> Names<'_> {
        self.plain
            .get_or_init(|| {
                let text = Cow::Borrowed(self.path.text.as_str());
                let mut segments = Segments { text, spans: Vec::new(), bare: None };
                let mut start = 1;
                for segment in self.path.segments() {
                    segments.spans.push((start, start + segment.len()));
                    start += segment.len() + 1;
                }
                segments
            })
            .names()
    }

    /// Returns the folded segments of a path that is not ambiguous. Adds the segments as seen by a server that makes
    /// characters compatible before it splits the path.
    pub(crate) fn spellings(&self) -> impl Iterator<Item = Names<'_>> {
        self.spellings.get_or_init(|| spellings(self.path)).iter().map(Segments::names)
    }

    /// Returns every way in which servers are known to read the path, ambiguous or not. Escapes are decoded up to
    /// three times before it is split. Parameters, queries and empty segments are left out. `..` is resolved, left
    /// out or retained.
    pub(crate) fn lenient(&self) -> impl Iterator<Item = Names<'_>> {
        self.lenient.get_or_init(|| lenient(&self.path.text)).iter().map(Segments::names)
    }
}

impl fmt::Display for PathReadings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// Segments of a path, in one piece of memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Segments<'p> {
    text: Cow<'p, str>,
    spans: Vec<(usize, usize)>,
    /// The last name without a format suffix, if it has one. It may be long, and is located once for all patterns.
    bare: Option<(usize, usize)>,
}

impl Segments<'_> {
    /// Finds the format suffix of the last name: Rails and others read `keys.json` as `keys`.
    fn find_format(mut self) -> Self {
        let last = self.spans.last().and_then(|(start, end)| Some((*start, self.text.get(*start..*end)?)));
        let dot = last.and_then(|(start, name)| Some((start, start + name.rfind('.')?)));
        self.bare = dot.filter(|(start, dot)| dot > start);
        self
    }

    fn push(&mut self, segment: &str) {
        let text = self.text.to_mut();
        let start = text.len();
        text.push_str(segment);
        self.spans.push((start, text.len()));
    }

    fn pop(&mut self) {
        if let Some((start, _)) = self.spans.pop() {
            self.text.to_mut().truncate(start);
        }
    }

    /// Returns the segments without the first.
    fn without_first(&self) -> Self {
        Segments { text: self.text.clone(), spans: self.spans[1..].to_vec(), bare: None }
    }

    /// Adds one empty segment at the end, unless there is one.
    fn ended(mut self) -> Self {
        let ends = self.spans.len() > 1 && self.spans.last().is_some_and(|(start, end)| start == end);
        if !ends {
            self.push("");
        }
        self
    }

    fn names(&self) -> Names<'_> {
        let bare = self.bare.and_then(|(start, end)| self.text.get(start..end));
        Names { text: &self.text, spans: &self.spans, last: None, bare }
    }

    fn folded<'s>(segments: impl Iterator<Item = &'s str>) -> Segments<'static> {
        let mut folded = Segments::default();
        for segment in segments {
            folded.push(&fold(segment));
        }
        folded
    }
}

/// The segments of one reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'n> {
    text: &'n str,
    spans: &'n [(usize, usize)],
    /// A replacement for the last segment.
    last: Option<&'n str>,
    bare: Option<&'n str>,
}

impl<'n> Names<'n> {
    /// Returns the number of segments.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Returns the segment at `at`.
    pub(crate) fn get(&self, at: usize) -> Option<&'n str> {
        let (start, end) = *self.spans.get(at)?;
        match self.last {
            Some(last) if at + 1 == self.spans.len() => Some(last),
            _ => self.text.get(start..end),
        }
    }

    /// Returns the position of the first segment from `from` on that equals `name`.
    pub(crate) fn find(&self, name: &str, from: usize) -> Option<usize> {
        // Lengths are compared first, because most segments differ in length.
        let is_it = |at: &usize| {
            let (start, end) = self.spans[*at];
            let replaced = self.last.filter(|_| at + 1 == self.spans.len());
            replaced
                .map_or_else(|| end - start == name.len() && self.get(*at) == Some(name), |last| last == name)
        };
        (from..self.spans.len()).find(is_it)
    }

    /// Returns the segments without the last.
    pub(crate) fn without_last(self) -> Names<'n> {
        Names { spans: &self.spans[..self.spans.len().saturating_sub(1)], last: None, bare: None, ..self }
    }

    /// Returns the segments without a format suffix of the last name, if it has one. Only [`PathReadings::lenient`]
    /// determines it.
    pub(crate) fn without_format(self) -> Option<Names<'n>> {
        Some(Names { last: Some(self.bare?), ..self })
    }
}

/// Each reading ends with an empty segment, as after a slash at the end.
fn spellings(path: &CanonicalPath) -> Vec<Segments<'static>> {
    let body = &path.text[1..];
    let mut all = vec![Segments::folded(body.split('/')).ended()];
    if path.is_respelled {
        let text = expanded(body);
        let cut = text.split(ENDS).next().unwrap_or_default();
        for text in [&*text, cut] {
            let parts = text.split(SEPARATORS).map(|part| part.split(';').next().unwrap_or_default());
            all.push(Segments::folded(parts).ended());
        }
    }
    all
}

fn lenient(text: &str) -> Vec<Segments<'static>> {
    let mut all = Vec::new();
    let (mut separators, mut ends) = (None, 0);
    for text in texts(text) {
        let found = text.matches(SEPARATORS).count();
        if separators.replace(found) != Some(found) {
            push_readings(&text, &mut all);
        }
        let found = text.matches(ENDS).count();
        if std::mem::replace(&mut ends, found) != found {
            push_readings(text.split(ENDS).next().unwrap_or_default(), &mut all);
        }
    }
    all.into_iter().map(Segments::find_format).collect()
}

/// Returns a path, its texts after each round of decoding, and the last one with compatible characters.
pub(super) fn texts(text: &str) -> Vec<Cow<'_, str>> {
    let mut texts = vec![Cow::Borrowed(text)];
    for round in 0..DECODINGS {
        let last = &*texts[round];
        if !last.contains('%') {
            break;
        }
        let next = decode(last).into_owned();
        texts.push(Cow::Owned(next));
    }
    if let Some(last) = texts.last().filter(|last| last.contains('%') || !last.is_ascii()) {
        let next = expanded(last).into_owned();
        texts.push(Cow::Owned(next));
    }
    texts
}

/// Adds the readings of a path that is split without further decoding: with all segments, then without dot segments,
/// then with them resolved. Servers may also read `//host/path` as a reference to another host (RFC 3986 section
/// 4.2), and ignore the host.
fn push_readings(text: &str, all: &mut Vec<Segments<'static>>) {
    let (mut kept, mut dropped, mut resolved) =
        (Segments::default(), Segments::default(), Segments::default());
    let (mut plain, mut is_reference) = (true, false);
    // Each text begins with a separator.
    for segment in text.split(SEPARATORS).skip(1) {
        if segment.is_empty() {
            is_reference |= resolved.spans.is_empty();
            continue;
        }
        let whole = expanded(segment);
        let name = fold_expanded(whole.split([';', '?', '#', '\0']).next().unwrap_or_default());
        let dots = name.trim().chars().filter(|c| *c == '.').count();
        if dots < name.trim().len() {
            for reading in [&mut kept, &mut dropped, &mut resolved] {
                reading.push(&name);
            }
            continue;
        }
        plain = false;
        kept.push(if name.is_empty() { segment } else { &name });
        if dots > 1 {
            resolved.pop();
        }
    }
    if is_reference && resolved.spans.len() > 1 {
        all.push(resolved.without_first());
    }
    all.push(kept);
    if !plain {
        all.extend([dropped, resolved]);
    }
}

/// Returns the maximum number of segments that a server may read in a path with these [`texts`]. Encoded separators
/// count as separators.
pub(super) fn most_segments(texts: &[Cow<'_, str>]) -> usize {
    texts.iter().map(|text| text.matches(SEPARATORS).count()).max().unwrap_or_default()
}

/// Returns whether a path with these [`texts`] contains characters that become separators or delimiters when they are
/// made compatible (`／`, `？`).
pub(super) fn is_respelled(texts: &[Cow<'_, str>]) -> bool {
    let delimiters = |text: &str| text.matches(['/', '\\', '?', '#', ';', '%', '\0']).count();
    match texts {
        [_, decoded, .., expanded] => !decoded.is_ascii() && delimiters(expanded) != delimiters(decoded),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &str) -> Vec<String> {
        let path = CanonicalPath::parse(path).unwrap();
        let readings = PathReadings::new(&path);
        let text =
            |names: Names<'_>| (0..names.len()).filter_map(|at| names.get(at)).collect::<Vec<_>>().join("|");
        readings.lenient().map(text).collect()
    }

    #[test]
    fn plain_path_has_one_reading() {
        assert_eq!(all("/v1/Chat/x.json"), ["v1|chat|x.json"]);
        assert_eq!(all("/"), [""]);
        assert_eq!(all("/a/b/"), ["a|b"]);
        assert_eq!(all("/%E3%83%AC%E3%83%9D/%EF%BC%91"), ["レポ|1"]);
    }

    #[test]
    fn ambiguous_path_has_every_reading() {
        let check = |path: &str, wanted: &str| {
            let all = all(path);
            assert!(all.iter().any(|reading| reading == wanted), "{path}: {wanted} is not in {all:?}");
        };
        check("/a/x/../b", "a|b");
        check("/a/x/../b", "a|x|b");
        check("/a/../b", "a|..|b");
        check("/a/%252e%252e/b", "b");
        check("/a/.. /b".replace(' ', "%20").as_str(), "b");
        check("/a%2Fb", "a/b");
        check("/a%2Fb", "a|b");
        check("/a%252Fb", "a|b");
        check("/a%25252Fb", "a|b");
        check("/a%5cb", "a|b");
        check("/a/b;x/c%3By", "a|b|c");
        check("/a/b%3Fx/c", "a|b");
        check("/a/b%00/c", "a|b");
        check("/a%EF%BC%8Fb", "a|b");
        check("/a/%EF%BC%8E%EF%BC%8E/b", "b");
        check("/a/%EF%BC%852e%EF%BC%852e/b", "b");
        check("/a/b%EF%BC%9Fx/c", "a|b");
        check("/A%CC%81", "á");
        check("/admin.%20/x::$data", "admin|x");
        check("/ad%E2%80%8Bmin", "admin");
        check("/%u0061dmin/%U002fx", "admin|x");
        check("/%25u0061dmin", "admin");
        check("/%u00zz%u", "%u00zz%u");
        check("/k%c1%a5ys", "keys");
        check("/k%e0%81%a5ys/k%f0%80%81%a5ys/k%fc%80%80%80%81%a5ys", "keys|keys|keys");
        check("/a%c0%afb", "a|b");
        check("//x/a/b", "a|b");
        check("///x/a/b", "a|b");
        check("/.//x/a/b", "a|b");
        check("/y/..//x/a/b", "a|b");
        check("/%5cx/a/b", "a|b");
        check("//x/a/../b", "b");
    }
}
