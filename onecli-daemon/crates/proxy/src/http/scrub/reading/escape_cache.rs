//! A cache of recently read escapes. Texts repeat the same few escapes, and escapes with many readings take long to
//! read.

use super::is_introducer;

/// The state of the cache while one text is read.
pub(super) struct EscapeCache {
    /// Indices of the escapes that [`simple`] finds, by character and length.
    pub(super) simple: [u32; 3 * 256],
    /// Other escapes, by the bytes that they begin with.
    pub(super) cached: [Option<CachedEscape>; 256],
    /// Bytes and indices in `from..to` are known to be equal to those `shift` positions later.
    pub(super) shift: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// An escape that was read: its first bytes, and its position.
#[derive(Clone, Copy)]
pub(super) struct CachedEscape {
    pub(super) window: [u8; WINDOW],
    pub(super) at: usize,
    pub(super) place: u32,
}

/// Number of bytes that distinguish escapes.
pub(super) const WINDOW: usize = 8;

impl EscapeCache {
    /// An empty cache.
    pub(super) fn new() -> EscapeCache {
        EscapeCache { simple: [0; 3 * 256], cached: [None; 256], shift: 0, from: 0, to: 0 }
    }

    /// The slot for an escape that begins with `window`.
    pub(super) fn slot(&mut self, window: [u8; WINDOW]) -> &mut Option<CachedEscape> {
        // Fibonacci hashing: the upper bits of the product are mixed best.
        let hash = u64::from_le_bytes(window).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        &mut self.cached[usize::from(hash.to_le_bytes()[0])]
    }
}

/// The escape at the start of the text: its character and length. The escape must have a single level and only one
/// reading besides the plain one. If the text is no escape, there is no character, and the length is 1. `None` if the
/// decision needs a full read.
pub(super) fn simple(text: &[u8]) -> Option<(Option<u8>, usize)> {
    let plain = |at: usize| text.get(at).copied().filter(|byte| !is_introducer(*byte));
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text.first()? {
        b'\\' => match plain(1)? {
            b'u' | b'x' | b'U' | b'0'..=b'7' => None,
            b'n' => Some((Some(b'\n'), 2)),
            b'r' => Some((Some(b'\r'), 2)),
            b't' => Some((Some(b'\t'), 2)),
            b'b' => Some((Some(8), 2)),
            b'f' => Some((Some(12), 2)),
            letter => Some((Some(letter), 2)),
        },
        b'%' => {
            let first = plain(1)?;
            let Some(upper) = hex(first) else { return (first != b'u').then_some((None, 1)) };
            let Some(lower) = hex(plain(2)?) else { return Some((None, 1)) };
            Some(upper * 16 + lower).filter(|byte| !is_introducer(*byte)).map(|byte| (Some(byte), 3))
        }
        _ => (!is_of_name(plain(1)?)).then_some((None, 1)),
    }
}

/// Returns whether this byte may occur in the name of an entity, or end it.
pub(super) fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'#' | b';')
}
