//! Text from outside in a form that cannot mislead a reader of the log.

use std::fmt::{self, Write};

use onecli_model::misleads;
use serde::{Deserialize, Serialize};

/// Text from outside in a form that cannot mislead a reader of the log. Control, bidirectional and other invisible
/// characters are written as `\u{..}`, a backslash as `\\`. So a terminal shows the actual content, and no line can
/// be forged or reordered (Unicode TR 36, "Trojan Source"). Text beyond [`Text::MAX`] bytes is cut and marked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Text(String);

impl Text {
    /// The most bytes of a text; the mark of a cut is added to them.
    pub const MAX: usize = 2048;

    /// Escapes untrusted text.
    pub fn new(raw: &str) -> Text {
        let mut text = String::with_capacity(raw.len().min(Text::MAX));
        let mut rest = raw.chars();
        while let Some(c) = rest.next() {
            if text.len() >= Text::MAX {
                let cut = c.len_utf8() + rest.as_str().len();
                let _ = write!(text, "..(+{cut} bytes)");
                break;
            }
            match c {
                '\\' => text.push_str("\\\\"),
                c if misleads(c) => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        Text(text)
    }

    /// Escapes untrusted bytes, such as a process's `comm`. Bytes that are not UTF-8 become U+FFFD.
    pub fn from_bytes(raw: &[u8]) -> Text {
        Text::new(&String::from_utf8_lossy(raw))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(raw: &str) -> Text {
        Text::new(raw)
    }
}

/// Reads a text back from a log. Backslashes stay unchanged. Misleading characters are escaped again, because the
/// file may have been edited.
impl From<String> for Text {
    fn from(stored: String) -> Text {
        if !stored.contains(misleads) {
            return Text(stored);
        }
        let mut text = String::with_capacity(stored.len() + 16);
        for c in stored.chars() {
            if misleads(c) { text.extend(c.escape_unicode()) } else { text.push(c) }
        }
        Text(text)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misleading_characters_are_escaped() {
        let check = |raw: &str, text: &str| assert_eq!(Text::new(raw).as_str(), text, "{raw:?}");
        check("plain /path %0A ü 漢", "plain /path %0A ü 漢");
        check("a\nb\r\t\0", "a\\u{a}b\\u{d}\\u{9}\\u{0}");
        check("\u{1b}[2J\u{9b}1m\u{7f}", "\\u{1b}[2J\\u{9b}1m\\u{7f}");
        check("gpj.\u{202e}exe", "gpj.\\u{202e}exe");
        check("a\u{2066}b\u{2069}\u{200b}\u{feff}", "a\\u{2066}b\\u{2069}\\u{200b}\\u{feff}");
        check("a\u{2028}b\u{e0041}", "a\\u{2028}b\\u{e0041}");
        check(r"\u{a}", r"\\u{a}");
    }

    /// All of Unicode's categories Cc, Cf, Zl and Zp (16.0), as first and last of each range.
    #[test]
    fn every_invisible_character_is_escaped() {
        let ranges = [
            (0x0, 0x1f),
            (0x7f, 0x9f),
            (0xad, 0xad),
            (0x600, 0x605),
            (0x61c, 0x61c),
            (0x6dd, 0x6dd),
            (0x70f, 0x70f),
            (0x890, 0x891),
            (0x8e2, 0x8e2),
            (0x180e, 0x180e),
            (0x200b, 0x200f),
            (0x2028, 0x202e),
            (0x2060, 0x2064),
            (0x2066, 0x206f),
            (0xfeff, 0xfeff),
            (0xfff9, 0xfffb),
            (0x110bd, 0x110bd),
            (0x110cd, 0x110cd),
            (0x13430, 0x1343f),
            (0x1bca0, 0x1bca3),
            (0x1d173, 0x1d17a),
            (0xe0001, 0xe0001),
            (0xe0020, 0xe007f),
        ];
        for c in ranges.into_iter().flat_map(|(first, last)| first..=last).filter_map(char::from_u32) {
            assert!(misleads(c), "{}", c.escape_unicode());
            assert!(!Text::new(&format!("a{c}b")).as_str().contains(c));
        }
    }

    #[test]
    fn long_text_is_cut_and_marked() {
        let text = Text::new(&"x".repeat(5000));
        assert_eq!(text.as_str(), format!("{}..(+{} bytes)", "x".repeat(2048), 5000 - 2048));
        assert!(Text::new(&"\u{202e}".repeat(5000)).as_str().len() < Text::MAX + 64);
    }

    #[test]
    fn stored_text_reads_back_unchanged() {
        for raw in ["a\\b", "a\nb", "plain", "\u{202e}"] {
            let text = Text::new(raw);
            assert_eq!(Text::from(String::from(text.clone())), text);
        }
        assert_eq!(Text::from("edited\u{202e}".to_owned()).as_str(), "edited\\u{202e}");
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(Text::from_bytes(b"py\xffthon").as_str(), "py\u{fffd}thon");
    }
}
