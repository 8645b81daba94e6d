//! Files of `NAME=VALUE` lines, as tools that load a `.env` read them. Nothing is expanded.

use zeroize::Zeroizing;

use crate::admin::api::{ImportEnd, Imported, NamedValue, WireValue};
use crate::model::SecretValue;

/// The values, and what cannot be one.
pub(super) fn read(text: &str) -> (Vec<NamedValue>, Vec<Imported>) {
    let (mut values, mut unusable) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let skipped = |name: String, reason: String| Imported {
            name,
            secret: None,
            end: ImportEnd::Skipped,
            reason: Some(reason),
            warning: None,
        };
        let Some((name, raw)) = assignment(line) else {
            unusable.push(skipped(format!("line {number}"), "it is not NAME=VALUE".to_owned()));
            continue;
        };
        let value = unquoted(raw).ok_or_else(|| "its quotes do not end in the same line".to_owned());
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
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_name = !name.is_empty() && name.len() <= 256 && name.bytes().all(plain);
    is_name.then(|| (name, value.trim_start()))
}

/// In single quotes as it stands, in double ones with escapes, else up to a comment.
fn unquoted(raw: &str) -> Option<Zeroizing<String>> {
    let mut out = Zeroizing::new(String::with_capacity(raw.len()));
    if let Some(rest) = raw.strip_prefix('\'') {
        out.push_str(rest.split_once('\'')?.0);
        return Some(out);
    }
    let Some(rest) = raw.strip_prefix('"') else {
        let end = raw.find(" #").or_else(|| raw.find("\t#")).unwrap_or(raw.len());
        out.push_str(raw[..end].trim_end());
        return Some(out);
    };
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_tools_read_them() {
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
    fn what_is_no_value_is_told_without_it() {
        let (values, unusable) = read("hunter22hunter22\nA=short\nB=\"hunter22\nC=\"two\\nhunter22\"\n");
        assert!(values.is_empty());
        let told: Vec<&str> = unusable.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(told, ["line 1", "A", "B", "C"]);
        assert!(!format!("{unusable:?}").contains("hunter22"));
    }
}
