//! Text for messages.

use std::path::Path;

use onecli_model::printable;

/// Formats a path for messages: no character in it ends a line, controls a terminal or changes the direction of the
/// text.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_on_one_line() {
        assert_eq!(shown(Path::new("/a\nb\u{1b}[2Jc\u{9b}ä")), "/a\\nb\\u{1b}[2Jc\\u{9b}ä");
        assert_eq!(shown(Path::new("/gpj.\u{202e}exe")), "/gpj.\\u{202e}exe");
    }
}
