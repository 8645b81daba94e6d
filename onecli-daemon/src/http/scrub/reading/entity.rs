//! HTML's character references (HTML 13.5): names of ASCII characters, and numbers.

use super::Character;

/// Most characters of an HTML entity that is decoded, between `&` and `;`.
pub(super) const MAX_ENTITY: usize = 10;
/// HTML's names for ASCII characters that are not letters or digits.
const ENTITIES: &[(&[u8], u8)] = &[
    (b"amp", b'&'),
    (b"apos", b'\''),
    (b"ast", b'*'),
    (b"bsol", b'\\'),
    (b"colon", b':'),
    (b"comma", b','),
    (b"commat", b'@'),
    (b"dollar", b'$'),
    (b"equals", b'='),
    (b"excl", b'!'),
    (b"grave", b'`'),
    (b"gt", b'>'),
    (b"Hat", b'^'),
    (b"lbrace", b'{'),
    (b"lbrack", b'['),
    (b"lcub", b'{'),
    (b"lowbar", b'_'),
    (b"lpar", b'('),
    (b"lsqb", b'['),
    (b"lt", b'<'),
    (b"midast", b'*'),
    (b"NewLine", b'\n'),
    (b"num", b'#'),
    (b"percnt", b'%'),
    (b"period", b'.'),
    (b"plus", b'+'),
    (b"quest", b'?'),
    (b"quot", b'"'),
    (b"rbrace", b'}'),
    (b"rbrack", b']'),
    (b"rcub", b'}'),
    (b"rpar", b')'),
    (b"rsqb", b']'),
    (b"semi", b';'),
    (b"sol", b'/'),
    (b"Tab", b'\t'),
    (b"verbar", b'|'),
    (b"vert", b'|'),
];

/// What stands between `&` and `;`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Name {
    bytes: [u8; MAX_ENTITY],
    length: usize,
}

impl Name {
    /// With one character more; `None` where it would be longer than any.
    pub(super) fn with(mut self, byte: u8) -> Option<Name> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        Some(self)
    }

    /// What it stands for.
    pub(super) fn character(&self) -> Option<Character> {
        let number = |digits, radix| {
            let digits = std::str::from_utf8(digits).ok()?;
            u32::from_str_radix(digits, radix).ok().and_then(Character::of)
        };
        match &self.bytes[..self.length] {
            [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
            [b'#', digits @ ..] => number(digits, 10),
            name => ENTITIES.iter().find(|(known, _)| *known == name).map(|(_, byte)| Character::byte(*byte)),
        }
    }
}
