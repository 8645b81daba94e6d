//! Patterns over the segments of a path, compiled once: `*` within a segment, `**` for any number of whole segments.
//!
//! Matching takes at most one comparison for each pair of a segment and a part of the pattern. A comparison is linear
//! in the segment. Backtracking never goes beyond the last `**`.

use memchr::memmem::Finder;

use crate::path::Names;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Globs {
    parts: Vec<Part>,
    /// The minimum number of segments of a matching path.
    least: usize,
    /// The maximum number of segments that the `**` at its beginning matches.
    most: usize,
    /// Whether that is the only `**`.
    is_tail: bool,
}

/// The pattern of one segment: a name, or a name with `*` in it. `**` covers any number of segments.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Name(String),
    Glob(Glob),
    AnyDepth,
}

/// The segments that a `**` at the end of a pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// At least one segment, which may be the empty one after a trailing slash.
    Something,
    /// Any number of segments.
    Anything,
}

impl Globs {
    /// Compiles a pattern from its segments. `spell` is applied to every segment except `**`.
    pub(crate) fn new<'s>(
        segments: impl Iterator<Item = &'s str>,
        end: End,
        spell: impl Fn(&str) -> String,
    ) -> Globs {
        let part = |segment: &str| match segment {
            "**" => Part::AnyDepth,
            segment => Part::new(spell(segment)),
        };
        let mut parts: Vec<Part> = segments.map(part).collect();
        if end == End::Something && matches!(parts.last(), Some(Part::AnyDepth)) {
            parts.insert(parts.len() - 1, Part::new("*".to_owned()));
        }
        // Several in a row are equivalent to one.
        parts.dedup_by(|a, b| matches!((a, b), (Part::AnyDepth, Part::AnyDepth)));
        let least = parts.iter().filter(|part| !matches!(part, Part::AnyDepth)).count();
        Globs { parts, least, most: usize::MAX, is_tail: false }
    }

    /// Returns this pattern with a prefix of up to `most` arbitrary segments.
    pub(crate) fn below(&self, most: usize) -> Globs {
        let mut parts = self.parts.clone();
        if matches!(parts.first(), Some(Part::AnyDepth)) {
            return self.clone();
        }
        let is_tail = !parts.iter().any(|part| matches!(part, Part::AnyDepth));
        parts.insert(0, Part::AnyDepth);
        Globs { parts, least: self.least, most, is_tail }
    }

    /// Returns whether the segments from `at` on match the parts after the `**` at the beginning, one by one.
    fn ends(&self, path: Names<'_>, at: usize) -> bool {
        let is_it =
            |(offset, own): (usize, &Part)| path.get(at + offset).is_some_and(|name| own.matches(name));
        at <= self.most && self.parts[1..].iter().enumerate().all(is_it)
    }

    /// Returns the number of segments that are names without a `*`.
    pub(crate) fn names(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Name(_))).count()
    }

    /// Returns whether its last segment is this name.
    pub(crate) fn ends_with(&self, name: &str) -> bool {
        matches!(self.parts.last(), Some(Part::Name(own)) if own == name)
    }

    /// Returns whether the pattern contains a path with these segments.
    pub(crate) fn matches(&self, path: Names<'_>) -> bool {
        if path.len() < self.least {
            return false;
        }
        if self.is_tail {
            return self.ends(path, path.len() - self.least);
        }
        let (mut part, mut segment) = (0, 0);
        // The part after the last `**`, and the segment that is tried there.
        let mut restart = None;
        loop {
            match (self.parts.get(part), path.get(segment)) {
                (None, None) => return true,
                (Some(Part::AnyDepth), _) if part + 1 == self.parts.len() => return true,
                (Some(Part::AnyDepth), _) => {
                    let Some(from) = self.next_try(part + 1, path, segment) else { return false };
                    restart = Some((part + 1, from));
                    (part, segment) = (part + 1, from);
                    continue;
                }
                // Later beginnings have fewer segments left.
                (Some(_), None) => return false,
                (Some(own), Some(name)) if own.matches(name) => {
                    part += 1;
                    segment += 1;
                    continue;
                }
                _ => {}
            }
            let Some((after, tried)) = restart else { return false };
            let Some(from) = self.next_try(after, path, tried + 1) else { return false };
            restart = Some((after, from));
            (part, segment) = (after, from);
        }
    }

    /// Returns the first segment from `from` on at which the parts after a `**` may begin. `part` is the one after
    /// it.
    fn next_try(&self, part: usize, path: Names<'_>, from: usize) -> Option<usize> {
        let found = match self.parts.get(part) {
            Some(Part::Name(own)) => path.find(own, from)?,
            _ => from,
        };
        (part > 1 || found <= self.most).then_some(found)
    }
}

impl Part {
    /// Compiles one segment.
    pub(crate) fn new(segment: String) -> Part {
        if segment.contains('*') { Part::Glob(Glob::new(&segment)) } else { Part::Name(segment) }
    }

    /// Returns whether the part matches `segment`.
    pub(crate) fn matches(&self, segment: &str) -> bool {
        match self {
            Part::Name(own) => own == segment,
            Part::Glob(own) => own.matches(segment.as_bytes()),
            Part::AnyDepth => true,
        }
    }
}

/// A text in which each `*` matches any run of bytes, including an empty one.
#[derive(Debug, Clone)]
pub(crate) struct Glob {
    prefix: String,
    /// The texts between two `*`, in order. The first occurrence of each leaves the most room for the rest.
    middle: Vec<Finder<'static>>,
    suffix: String,
}

impl Glob {
    fn new(text: &str) -> Glob {
        let mut pieces = text.split('*').map(str::to_owned);
        let prefix = pieces.next().unwrap_or_default();
        let suffix = pieces.next_back().unwrap_or_default();
        let middle = pieces
            .filter(|piece| !piece.is_empty())
            .map(|piece| Finder::new(piece.as_bytes()).into_owned())
            .collect();
        Glob { prefix, middle, suffix }
    }

    fn matches(&self, text: &[u8]) -> bool {
        let rest = text.strip_prefix(self.prefix.as_bytes());
        let Some(mut rest) = rest.and_then(|rest| rest.strip_suffix(self.suffix.as_bytes())) else {
            return false;
        };
        self.middle.iter().all(|piece| {
            let found = piece.find(rest);
            rest = &rest[found.map_or(rest.len(), |at| at + piece.needle().len())..];
            found.is_some()
        })
    }
}

#[cfg(test)]
mod tests;
