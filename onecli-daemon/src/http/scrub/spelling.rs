//! The spellings of a text that a response is searched for.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::model::{WireForm, base64_core};

/// A spelling to search for; shared by all responses that are searched for it.
pub(in crate::http) type Needle = Arc<Zeroizing<Vec<u8>>>;

/// Every spelling of these texts: as it is, in UTF-16, in base64 (both alphabets, wherever in a longer text it stands) and
/// in hex. Escapes and line breaks are found by [`super::reading`].
pub(in crate::http) fn spellings(forms: &[WireForm]) -> Vec<Needle> {
    let mut all: Vec<Needle> = Vec::new();
    for form in forms {
        spell(form.expose(), &mut |spelling| {
            if !spelling.is_empty() && !all.iter().any(|known| **known == spelling) {
                all.push(Arc::new(spelling));
            }
        });
    }
    all
}

fn spell(raw: &[u8], add: &mut impl FnMut(Zeroizing<Vec<u8>>)) {
    add(Zeroizing::new(raw.to_vec()));
    if raw.contains(&b' ') {
        // application/x-www-form-urlencoded
        add(Zeroizing::new(raw.iter().map(|b| if *b == b' ' { b'+' } else { *b }).collect()));
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
        add(little);
        add(big);
    }
    for encoding in [&data_encoding::BASE64_NOPAD, &data_encoding::BASE64URL_NOPAD] {
        for offset in 0..3 {
            add(base64_core(encoding, raw, offset));
        }
    }
    for encoding in [&data_encoding::HEXLOWER, &data_encoding::HEXUPPER] {
        add(Zeroizing::new(encoding.encode(raw).into_bytes()));
    }
}
