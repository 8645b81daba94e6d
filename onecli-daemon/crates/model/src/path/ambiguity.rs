//! The reasons why servers disagree about a path.

use std::fmt;

/// The reason why servers disagree about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ambiguity {
    /// A `.` or `..` segment, or one that servers read as such: `...`, `..%20`, `..::$DATA`, full-width dots.
    DotSegment,
    /// An encoded `/` (`%2F`).
    EncodedSlash,
    /// A `\` or `%5C`.
    Backslash,
    /// `//`, or a segment of white space.
    EmptySegment,
    /// `;`. Some servers remove it with the text that follows.
    PathParameter,
    /// An encoded percent sign before two hex digits, or a `%` that is not followed by two hex digits.
    DoubleEncoding,
    /// An encoded control character, or an encoded `?` or `#`.
    EncodedDelimiter,
    /// Escapes that are not UTF-8. Some servers read overlong forms (`%C0%AE`) as `.` and `/`.
    NotUtf8,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ambiguity::DotSegment => "a '.' or '..' segment, or one that servers read as such",
            Ambiguity::EncodedSlash => "an encoded slash (%2F)",
            Ambiguity::Backslash => "a backslash",
            Ambiguity::EmptySegment => "an empty segment (//)",
            Ambiguity::PathParameter => "a path parameter (;)",
            Ambiguity::DoubleEncoding => "a doubly encoded or broken percent escape",
            Ambiguity::EncodedDelimiter => "an encoded control character, '?' or '#'",
            Ambiguity::NotUtf8 => "percent escapes that are not UTF-8",
        })
    }
}
