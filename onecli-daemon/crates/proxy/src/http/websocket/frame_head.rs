//! Heads of WebSocket frames (RFC 6455 section 5.2).

/// Longest head of a frame: two bytes, a length of eight, a mask of four.
pub(crate) const LONGEST: usize = 14;

/// The fields of a frame's head, without validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) opcode: u8,
    /// Set for the last frame of a message.
    pub(crate) is_last: bool,
    /// Length of the payload, in bytes.
    pub(crate) length: u64,
    /// The mask; zeros if there is none.
    pub(crate) mask: [u8; 4],
}

impl FrameHead {
    /// Parses a head; `None` while it is incomplete.
    pub(crate) fn parse(head: &[u8]) -> Option<FrameHead> {
        let &[first, second, ref rest @ ..] = head else { return None };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = if second & 0x80 != 0 { 4 } else { 0 };
        if rest.len() < extended + masked {
            return None;
        }
        let long = rest[..extended].iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let length = if extended == 0 { u64::from(second & 0x7f) } else { long };
        let mask = rest[extended..].try_into().unwrap_or_default();
        Some(FrameHead { opcode: first & 0x0f, is_last: first & 0x80 != 0, length, mask })
    }

    /// Returns whether it is a close, a ping, a pong or another frame that may occur within a message.
    pub(crate) fn is_control(&self) -> bool {
        self.opcode >= 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_heads_are_parsed() {
        let check = |head: &[u8], length: u64, mask: [u8; 4], is_control: bool, is_last: bool| {
            for short in 0..head.len() {
                assert!(FrameHead::parse(&head[..short]).is_none(), "{head:?} {short}");
            }
            let read = FrameHead::parse(head).unwrap();
            assert_eq!((read.length, read.mask), (length, mask), "{head:?}");
            assert_eq!((read.is_control(), read.is_last), (is_control, is_last), "{head:?}");
        };
        check(&[0x81, 0x85, 1, 2, 3, 4], 5, [1, 2, 3, 4], false, true);
        check(&[0x01, 0xfe, 1, 0, 1, 2, 3, 4], 256, [1, 2, 3, 4], false, false);
        check(&[0x89, 0x80, 1, 2, 3, 4], 0, [1, 2, 3, 4], true, true);
        check(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 9, 8, 7, 6], 65_536, [9, 8, 7, 6], false, true);
        // A client must mask its frames; a frame without a mask is still parsed.
        check(&[0x82, 0x03], 3, [0; 4], false, true);
    }
}
