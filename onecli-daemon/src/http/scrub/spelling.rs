//! The spellings of a text that a response is searched for.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::hold::{Tail, decisive};
use crate::model::{Alphabet, ValueClass, WireForm, base64_core};

/// A spelling to search for; shared by all responses that are searched for it.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::http) struct Needle {
    /// The bytes that decide a match. At least one.
    pub(super) bytes: Arc<Zeroizing<Vec<u8>>>,
    /// What is masked behind them.
    pub(super) tail: Tail,
    class: ValueClass,
}

impl Needle {
    /// Of a value of this class. `None` where no match could be found: two line breaks end each one, and UTF-16 of a few
    /// characters looks like those (U+0A0A, U+0D0A).
    pub(super) fn new(mut spelling: Zeroizing<Vec<u8>>, class: ValueClass) -> Option<Needle> {
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let is_ended = spelling.first().is_none_or(is_break)
            || spelling.windows(2).any(|pair| is_break(&pair[0]) && is_break(&pair[1]));
        if is_ended {
            return None;
        }
        let left = spelling.len().saturating_sub(decisive(class.length));
        let decides = spelling.len() - left;
        spelling.truncate(decides);
        let tail = Tail::new(left, class.alphabet);
        Some(Needle { bytes: Arc::new(spelling), tail, class })
    }

    /// How many bytes of it are kept.
    pub(in crate::http) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The class of the value.
    pub(super) fn class(&self) -> ValueClass {
        self.class
    }
}

/// Every spelling of these texts: as it is, in UTF-16, in base64 (both alphabets, wherever in a longer text it stands) and
/// in hex. Escapes and line breaks are found by [`super::reading`].
pub(in crate::http) fn spellings(forms: &[WireForm]) -> Vec<Needle> {
    let mut all: Vec<Needle> = Vec::new();
    for form in forms {
        let class = form.class();
        spell(form.expose(), &mut |spelling, alphabet| {
            let needle =
                Needle::new(spelling, ValueClass { alphabet: alphabet.unwrap_or(class.alphabet), ..class });
            all.extend(needle.filter(|needle| !all.contains(needle)));
        });
    }
    all
}

/// Tells each spelling with its alphabet, where that is not the value's own.
fn spell(raw: &[u8], add: &mut impl FnMut(Zeroizing<Vec<u8>>, Option<Alphabet>)) {
    add(Zeroizing::new(raw.to_vec()), None);
    if raw.contains(&b' ') {
        // application/x-www-form-urlencoded
        add(Zeroizing::new(raw.iter().map(|b| if *b == b' ' { b'+' } else { *b }).collect()), None);
    }
    if let Ok(text) = std::str::from_utf8(raw) {
        // Without the outer zeros, which belong to other characters in the other byte order.
        let wide = |encode: fn(u16) -> [u8; 2]| {
            let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() * 2));
            text.encode_utf16().for_each(|unit| bytes.extend_from_slice(&encode(unit)));
            bytes
        };
        let (mut little, mut big) = (wide(u16::to_le_bytes), wide(u16::to_be_bytes));
        if little.last() == Some(&0) {
            little.pop();
        }
        if big.first() == Some(&0) {
            big.remove(0);
        }
        add(little, None);
        add(big, None);
    }
    for encoding in [&data_encoding::BASE64_NOPAD, &data_encoding::BASE64URL_NOPAD] {
        for offset in 0..3 {
            add(base64_core(encoding, raw, offset), Some(Alphabet::Token));
        }
    }
    for encoding in [&data_encoding::HEXLOWER, &data_encoding::HEXUPPER] {
        add(Zeroizing::new(encoding.encode(raw).into_bytes()), Some(Alphabet::Token));
    }
}
