//! The characters before a match whose bits belong partly to the value and partly to its neighbours, as in base64.

use onecli_model::Alphabet;

use super::hold::goes_on;
use super::reading::{EscapedText, is_introducer, is_within_escape};

/// Longest spelling of a character before a match, in bytes: a base64 character in the escapes that programs write.
const MAX_CHARACTER: usize = 64;

/// The start of the `count` decoded bytes before `start`, in the reading that extends furthest back. A line break may
/// separate two of them.
pub(super) fn beginning(text: &EscapedText<'_>, start: usize, count: usize) -> usize {
    let (mut places, mut first) = (vec![start], start);
    for _ in 0..count {
        let mut before: Vec<usize> =
            places.iter().flat_map(|place| characters_before(text, *place)).collect();
        before.sort_unstable();
        before.dedup();
        first = before.first().copied().unwrap_or(first);
        places = before;
    }
    first
}

/// The starts of characters that end at `at`, or at a line break before it.
fn characters_before(text: &EscapedText<'_>, at: usize) -> Vec<usize> {
    let mut ends = vec![at];
    ends.extend(introducers(text, at).filter(|place| {
        let mut breaks = Vec::new();
        text.line_breaks(*place, &mut breaks);
        breaks.contains(&at)
    }));
    let before =
        ends.iter().flat_map(|end| introducers(text, *end).filter(|place| is_character(text, *place, *end)));
    before.collect()
}

fn is_character(text: &EscapedText<'_>, from: usize, to: usize) -> bool {
    let mut readings = text.readings(from);
    readings.any(|reading| {
        reading.end == to && reading.character.as_bytes().iter().all(|byte| goes_on(Alphabet::Token, *byte))
    })
}

/// Positions before `at` at which one character that ends there may begin.
fn introducers<'t>(text: &EscapedText<'t>, at: usize) -> impl Iterator<Item = usize> + use<'t> {
    let raw = text.raw();
    let within = move |place: &usize| {
        // The last byte of an escape may be any byte.
        place + 1 == at || is_within_escape(raw[*place]) || is_break(raw[*place])
    };
    let places = (at.saturating_sub(MAX_CHARACTER)..at).rev().take_while(within);
    places.filter(move |place| place + 1 == at || is_introducer(raw[*place]) || is_break(raw[*place]))
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_before_a_match_are_found_in_every_spelling() {
        let check = |before: &str, count: usize, expected: usize| {
            let text = format!("{before}match");
            let from = beginning(&EscapedText::new(text.as_bytes()), before.len(), count);
            assert_eq!(from, expected, "{before:?} {count}");
        };
        check("", 1, 0);
        check("ab", 0, 2);
        check("ab", 1, 1);
        check("ab", 2, 0);
        check("a\"", 1, 2);
        check("a\r\n", 1, 0);
        check("a\n", 1, 0);
        check("a\n\n", 1, 3);
        check("a%2B", 1, 1);
        check("a%0D%0A", 1, 0);
        check("a\\n", 1, 0);
        check("a\\u002b", 1, 1);
        check("a%252B", 1, 1);
        check("ab&#43;", 2, 1);
        check("x\0a\0", 2, 2);
    }
}
