//! Text codings in which a character holds bits of two bytes (RFC 4648). The first and last character of a value may
//! also hold bits of the text beside it.

use data_encoding::Encoding;
use zeroize::Zeroizing;

/// One such coding.
#[derive(Debug, Clone, Copy)]
pub struct Coding {
    encoding: &'static Encoding,
    /// The number of bits in a character.
    bits: usize,
    /// The number of bytes that are encoded into a whole number of characters.
    group: usize,
    /// Whether letters are in lower case.
    is_lower: bool,
}

/// The characters that depend on a value alone. It has no `Debug`, which would print them.
pub struct Core {
    /// The characters; none for a value of one or two bytes.
    pub text: Zeroizing<Vec<u8>>,
    /// The number of characters before and after them that also hold bits of the value.
    pub shared: (usize, usize),
}

impl Coding {
    /// Base64 (RFC 4648 section 4).
    pub const BASE64: Coding =
        Coding { encoding: &data_encoding::BASE64_NOPAD, bits: 6, group: 3, is_lower: false };
    /// All codings: both alphabets of base64, and base32 in both letter cases (RFC 4648 sections 4 to 6).
    pub const ALL: [Coding; 4] = [
        Coding::BASE64,
        Coding { encoding: &data_encoding::BASE64URL_NOPAD, bits: 6, group: 3, is_lower: false },
        Coding { encoding: &data_encoding::BASE32_NOPAD, bits: 5, group: 5, is_lower: false },
        Coding { encoding: &data_encoding::BASE32_NOPAD, bits: 5, group: 5, is_lower: true },
    ];

    /// Returns every distinct offset of a value in a longer text, in bytes before it.
    pub fn offsets(self) -> std::ops::Range<usize> {
        0..self.group
    }

    /// Returns the core of `value` at `offset` bytes after a multiple of the group. `(before, behind)` bytes beside
    /// `value` already belong to it: the characters that hold bits of those are shared, too.
    pub fn core(self, value: &[u8], offset: usize, (before, behind): (usize, usize)) -> Core {
        let mut padded = Zeroizing::new(vec![0; offset]);
        padded.reserve_exact(value.len());
        padded.extend_from_slice(value);
        let mut encoded = Zeroizing::new(self.encoding.encode(&padded));
        if self.is_lower {
            encoded.make_ascii_lowercase();
        }
        let (first, end) = (offset * 8, padded.len() * 8);
        let (from, to) = (first.div_ceil(self.bits), end / self.bits);
        let text = Zeroizing::new(encoded.as_bytes().get(from..to).unwrap_or_default().to_vec());
        // Enough groups before it to contain the preceding bytes.
        let groups = before.div_ceil(self.group);
        let more = groups * self.group * 8;
        let before = from + more / self.bits - (first + more - before * 8) / self.bits;
        let behind = (end + behind * 8).div_ceil(self.bits) - to;
        Core { text, shared: (before, behind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text beside a value changes no character of its core. Every character outside the core and the shared ones is
    /// free of the value's bits.
    #[test]
    fn characters_outside_core_and_edges_are_free_of_value_bits() {
        let encode = |coding: Coding, parts: [&[u8]; 3]| {
            let text = coding.encoding.encode(&parts.concat());
            if coding.is_lower { text.to_ascii_lowercase() } else { text }.into_bytes()
        };
        for coding in Coding::ALL {
            for length in 2..12 {
                let (value, other): (Vec<u8>, Vec<u8>) = (vec![0x00; length], vec![0xff; length]);
                for offset in coding.offsets() {
                    let core = coding.core(&value, offset, (0, 0));
                    let before = vec![0x5a; offset];
                    let text = encode(coding, [&before, &value, &[0x5a; 5]]);
                    let beside = encode(coding, [&before, &other, &[0x5a; 5]]);
                    let differs: Vec<usize> = (0..text.len()).filter(|at| text[*at] != beside[*at]).collect();
                    let from = (offset * 8).div_ceil(coding.bits);
                    let (first, last) = (from - core.shared.0, from + core.text.len() + core.shared.1 - 1);
                    assert_eq!(
                        (differs[0], *differs.last().unwrap()),
                        (first, last),
                        "{coding:?} {length} {offset}"
                    );
                    assert_eq!(core.text.as_slice(), &text[from..from + core.text.len()]);
                }
            }
        }
    }

    /// A Basic credential has its own edges, which lie in more characters of an outer base64.
    #[test]
    fn shared_characters_of_nested_codings_are_counted() {
        let check = |offset, shared, expected| {
            assert_eq!(
                Coding::BASE64.core(b"abcdef", offset, shared).shared,
                expected,
                "{offset} {shared:?}"
            );
        };
        check(0, (0, 0), (0, 0));
        check(1, (0, 0), (1, 1));
        check(2, (0, 0), (1, 1));
        check(0, (1, 1), (2, 2));
        check(1, (1, 1), (2, 2));
        check(2, (1, 1), (2, 2));
    }
}
