//! The link between a line of the log and the one before it.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::tree::Hash;

/// The link from a line to the one before it, its `prev`: the first 16 bytes of that line's leaf hash in
/// hexadecimal. The leaf hash is SHA-256 over a zero byte and the line. In the first line of a log the link is all
/// zeros. The Merkle tree proves that no line was changed. The links show which line was changed, and an operator
/// can check them with `sha256sum`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Link([u8; 16]);

impl Link {
    /// The link to the line with this leaf hash.
    pub(super) fn of(leaf: &Hash) -> Link {
        let mut link = [0; 16];
        link.copy_from_slice(&leaf[..16]);
        Link(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        HEXLOWER.encode_mut(&self.0, &mut text);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Link {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Link, Self::Err> {
        let mut link = [0; 16];
        match HEXLOWER.decode_len(text.len()) {
            Ok(16) if HEXLOWER.decode_mut(text.as_bytes(), &mut link).is_ok() => Ok(Link(link)),
            _ => Err("a link is 32 hexadecimal digits"),
        }
    }
}

impl TryFrom<String> for Link {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Link, Self::Error> {
        text.parse()
    }
}
