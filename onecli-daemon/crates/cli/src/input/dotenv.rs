//! Files of `NAME=VALUE` lines, parsed as tools that load a `.env` do. Nothing is expanded.

use onecli_api::{ImportOutcome, Imported, NamedValue, WireValue};
use onecli_model::SecretValue;
use zeroize::Zeroizing;

/// The byte order mark, which Windows editors write before the first line.
pub(crate) const MARK: char = '\u{feff}';

/// Returns the values, and the lines that cannot be used.
pub(crate) fn read(text: &str) -> (Vec<NamedValue>, Vec<Imported>) {
    let (mut values, mut unusable) = (Vec::new(), Vec::new());
    let text = text.strip_prefix(MARK).unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let skipped = |name: String, reason: String| Imported {
            name,
            secret: None,
            end: ImportOutcome::Skipped,
            reason: Some(reason),
            warning: None,
        };
        let Some((name, raw)) = assignment(line) else {
            unusable.push(skipped(format!("line {number}"), "it is not NAME=VALUE".to_owned()));
            continue;
        };
        let value = unquoted(raw).map_err(str::to_owned);
        let value = value
            .and_then(|value| SecretValue::new(value.as_bytes().to_vec()).map_err(|error| error.to_string()));
        match value {
            Ok(value) => values.push(NamedValue { name: name.to_owned(), value: WireValue(value) }),
            Err(reason) => unusable.push(skipped(name.to_owned(), reason)),
        }
    }
    (values, unusable)
}

fn assignment(line: &str) -> Option<(&str, &str)> {
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let line = exported.unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_name = !name.is_empty() && name.len() <= 256 && name.bytes().all(plain);
    is_name.then(|| (name, value.trim_start()))
}

/// Unquotes a value: verbatim in single quotes, with escapes in double quotes, otherwise up to a comment.
fn unquoted(raw: &str) -> Result<Zeroizing<String>, &'static str> {
    const OPEN: &str = "its closing quote is not on the same line";
    let mut out = Zeroizing::new(String::with_capacity(raw.len()));
    if let Some(rest) = raw.strip_prefix('\'') {
        let (value, after) = rest.split_once('\'').ok_or(OPEN)?;
        out.push_str(value);
        return ended(out, after);
    }
    let Some(rest) = raw.strip_prefix('"') else {
        let end = raw.find(" #").or_else(|| raw.find("\t#")).unwrap_or(raw.len());
        out.push_str(raw[..end].trim_end());
        return Ok(out);
    };
    let mut chars = rest.chars();
    loop {
        match chars.next().ok_or(OPEN)? {
            '"' => return ended(out, chars.as_str()),
            '\\' => match chars.next().ok_or(OPEN)? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}

/// Checks that only a comment follows the closing quote. A shell would append other text to the value.
fn ended(value: Zeroizing<String>, after: &str) -> Result<Zeroizing<String>, &'static str> {
    let is_comment = after.trim_start().starts_with('#') && after.starts_with([' ', '\t']);
    let is_end = after.trim().is_empty() || is_comment;
    if is_end { Ok(value) } else { Err("text follows its closing quote") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed_like_other_dotenv_tools() {
        let text = "# a comment\n\nexport A_KEY=sk-12345678 # why\nB='sk-1 # \"2345'\r\nC=\"sk-\\\"12\\\\345\"\n D = sk-12345678 \n";
        let (values, unusable) = read(text);
        let got: Vec<(&str, &[u8])> =
            values.iter().map(|named| (named.name.as_str(), named.value.0.expose())).collect();
        let expected: [(&str, &[u8]); 4] = [
            ("A_KEY", b"sk-12345678"),
            ("B", b"sk-1 # \"2345"),
            ("C", b"sk-\"12\\345"),
            ("D", b"sk-12345678"),
        ];
        assert_eq!(got, expected);
        assert!(unusable.is_empty(), "{unusable:?}");
    }

    #[test]
    fn byte_order_mark_and_tabs_are_not_part_of_a_name() {
        let (values, unusable) = read("\u{feff}A='sk-12345678' # why\n\texport\tB=\"sk-12345678\"\t#\n");
        let names: Vec<&str> = values.iter().map(|named| named.name.as_str()).collect();
        assert_eq!(names, ["A", "B"]);
        assert!(unusable.is_empty(), "{unusable:?}");
    }

    #[test]
    fn value_with_text_after_its_quote_is_refused() {
        let (values, unusable) = read("A='sk-12345678'def\nB=\"sk-12345678\"'def'\nC='sk-12345678'#no\n");
        assert!(values.is_empty());
        assert_eq!(unusable.len(), 3);
        assert!(unusable.iter().all(|one| one.reason.as_deref() == Some("text follows its closing quote")));
    }

    #[test]
    fn unusable_lines_are_reported_without_their_content() {
        let (values, unusable) = read("hunter22hunter22\nA=short\nB=\"hunter22\nC=\"two\\nhunter22\"\n");
        assert!(values.is_empty());
        let unusable_names: Vec<&str> = unusable.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(unusable_names, ["line 1", "A", "B", "C"]);
        assert!(!format!("{unusable:?}").contains("hunter22"));
    }
}
