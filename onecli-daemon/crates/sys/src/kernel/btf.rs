//! Offsets of fields in structures of the running kernel, from the kernel's own description (BTF,
//! Documentation/bpf/btf.rst of the kernel). aya reads the description to load programs, and does not expose it.

use std::{fs, io};

/// The description of the kernel itself. Linux 5.4, with `CONFIG_DEBUG_INFO_BTF`.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u32 = 0xeb9f;
/// Bytes of `struct btf_type` before the part that depends on its kind.
const TYPE: usize = 12;
/// Bytes of `struct btf_member`.
const MEMBER: usize = 12;
/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;

/// Structures of the running kernel.
pub(super) struct Kernel {
    bytes: Vec<u8>,
}

impl Kernel {
    /// Reads the description, some megabytes.
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self { bytes: fs::read(VMLINUX)? })
    }

    /// Returns the offset in bits of the member `field` in `structure`; `None` if the kernel has no such member.
    pub(super) fn bit_offset(&self, structure: &str, field: &str) -> Option<u32> {
        offset(&self.bytes, structure, field)
    }
}

/// Returns the offset from any description in this machine's byte order.
pub(super) fn offset(bytes: &[u8], structure: &str, field: &str) -> Option<u32> {
    // Magic, version and flags; then lengths and offsets, relative to the end of the header.
    if word(bytes, 0)? & 0xffff != MAGIC {
        return None;
    }
    let header = index(word(bytes, 4)?);
    let (types, types_length) = (index(word(bytes, 8)?), index(word(bytes, 12)?));
    let (strings, strings_length) = (index(word(bytes, 16)?), index(word(bytes, 20)?));
    let section = |start: usize, length: usize| bytes.get(header + start..header + start + length);
    let (types, strings) = (section(types, types_length)?, section(strings, strings_length)?);
    let is_named = |name: u32, wanted: &str| {
        let rest = strings.get(index(name)..).and_then(|rest| rest.strip_prefix(wanted.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    };
    let mut at = 0;
    while at + TYPE <= types.len() {
        let (name, info) = (word(types, at)?, word(types, at + 4)?);
        let (kind, entries, has_bit_sizes) = (info >> 24 & 0x1f, index(info & 0xffff), info >> 31 == 1);
        let body = at + TYPE;
        if kind == STRUCT && is_named(name, structure) {
            let members = (0..entries).map(|entry| body + entry * MEMBER);
            for member in members {
                if is_named(word(types, member)?, field) {
                    let offset = word(types, member + 8)?;
                    return Some(if has_bit_sizes { offset & 0x00ff_ffff } else { offset });
                }
            }
        }
        at = body + extra(kind)?.0 + entries * extra(kind)?.1;
    }
    None
}

/// Bytes of a type of this kind behind its head: once, and for each of its entries.
const fn extra(kind: u32) -> Option<(usize, usize)> {
    Some(match kind {
        // INT, VAR, DECL_TAG.
        1 | 14 | 17 => (4, 0),
        // ARRAY.
        3 => (12, 0),
        // STRUCT, UNION, DATASEC, ENUM64.
        STRUCT | 5 | 15 | 19 => (0, MEMBER),
        // ENUM, FUNC_PROTO.
        6 | 13 => (0, 8),
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG.
        2 | 7..=12 | 16 | 18 => (0, 0),
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Converts; 32 bits fit.
const fn index(word: u32) -> usize {
    word as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description of one structure with two members, the second of them a bit, and a pointer before it.
    fn sample() -> Vec<u8> {
        let strings = b"\0sock\0sk_other\0sk_bit\0";
        let types: [u32; 12] =
            [0, 2 << 24, 1, 1, 1 << 31 | STRUCT << 24 | 2, 8, 6, 1, 32, 15, 1, 1 << 24 | 0x4d];
        let header = [MAGIC | 1 << 16, 24, 0, 48, 48, u32::try_from(strings.len()).unwrap()];
        let words = header.into_iter().chain(types).flat_map(u32::to_ne_bytes);
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn members_are_found_and_nonsense_is_no_panic() {
        let bytes = sample();
        assert_eq!(offset(&bytes, "sock", "sk_other"), Some(32));
        assert_eq!(offset(&bytes, "sock", "sk_bit"), Some(77));
        for (structure, field) in [("sock", "sk_bi"), ("soc", "sk_bit"), ("socket", "sk_bit"), ("sock", "")] {
            assert_eq!(offset(&bytes, structure, field), None, "{structure} {field}");
        }
        for length in 0..bytes.len() {
            assert_eq!(offset(&bytes[..length], "sock", "sk_bit"), None, "{length} bytes");
        }
    }
}
