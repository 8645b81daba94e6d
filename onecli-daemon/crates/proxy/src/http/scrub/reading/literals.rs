//! Escapes by code point, in string literals and in CSS.

use super::{Character, Decoding, EscapedText, PendingEscape};

/// Maximum number of digits between braces.
const MAX_BRACED: usize = 8;
/// Maximum number of digits of a CSS escape (CSS Syntax 3, 4.3.7).
const MAX_CSS: usize = 6;

impl EscapedText<'_> {
    /// Reads this many hexadecimal digits: `\xXX` of most languages, `\UXXXXXXXX` of Python, C and Go.
    pub(super) fn code_point(&self, escape: Decoding, digits: usize, out: &mut PendingEscape) {
        for (code, escape) in self.hexadecimal(escape, digits, out) {
            out.add(Character::of(code), escape);
        }
    }

    /// Reads the part after the letter in `\u{X}` of JavaScript and Rust, and `\x{X}` of Perl and PCRE.
    pub(super) fn braced(&self, escape: Decoding, out: &mut PendingEscape) {
        let mut numbers: Vec<(u32, Decoding)> =
            self.next(escape, out, |byte| byte == b'{').map(|(_, brace)| (0, brace)).collect();
        for _ in 0..MAX_BRACED {
            if numbers.is_empty() {
                return;
            }
            self.digits(&mut numbers, 16, out);
            for &(code, so_far) in &numbers {
                for (_, end) in self.next(so_far, out, |byte| byte == b'}') {
                    out.add(Character::of(code), end);
                }
            }
        }
    }

    /// Reads a CSS escape: up to six hexadecimal digits after a backslash, and one blank that belongs to them. The
    /// escape ends before a byte that is no digit. Two digits are also a complete escape, as in LDAP (RFC 4514
    /// section 2.4). Only escapes that begin with 0 to 7 are read, which covers all of ASCII.
    pub(super) fn css(&self, digit: u32, so_far: Decoding, out: &mut PendingEscape) {
        let mut numbers = vec![(digit, so_far)];
        for digits in 2..=MAX_CSS {
            self.digits(&mut numbers, 16, out);
            for &(code, so_far) in &numbers {
                self.end_of_css(code, (so_far, digits), out);
            }
        }
    }

    fn end_of_css(&self, code: u32, (so_far, digits): (Decoding, usize), out: &mut PendingEscape) {
        let mut ends = matches!(digits, 2 | MAX_CSS) || so_far.end >= self.raw.len();
        for (byte, after) in self.next(so_far, out, |_| true) {
            if matches!(byte, b' ' | b'\t') {
                out.add(Character::of(code), after);
            }
            ends |= !byte.is_ascii_hexdigit();
        }
        if ends {
            out.add(Character::of(code), so_far);
        }
    }
}
