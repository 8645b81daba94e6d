//! A credential in plain text.

use std::fmt;

use zeroize::Zeroizing;

/// A credential in plain text. Zeroed when dropped. It has no `Display`, and its `Debug` shows nothing.
#[derive(Clone)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// The reason why a value was refused. Never contains the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretValueError {
    /// The value is too short to be scrubbed from responses without damage to them.
    #[error("the value is shorter than 8 bytes: too short to be recognized in an upstream's response")]
    TooShort,
    /// The value is larger than a header may be.
    #[error("the value is longer than 16 KiB")]
    TooLong,
    /// The value contains control characters, which would end a header.
    #[error("the value contains a control character (CR, LF, NUL, ...): is it a file with several lines?")]
    ControlCharacter,
}

impl SecretValue {
    /// Checks the limits: 8 bytes to 16 KiB, no control characters.
    ///
    /// # Errors
    /// [`SecretValueError`].
    pub fn new(bytes: Vec<u8>) -> Result<SecretValue, SecretValueError> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            ..8 => Err(SecretValueError::TooShort),
            16_385.. => Err(SecretValueError::TooLong),
            _ if bytes.iter().any(u8::is_ascii_control) => Err(SecretValueError::ControlCharacter),
            _ => Ok(SecretValue(bytes)),
        }
    }

    /// Reads a value from a file or a document. One line end is removed. A format with several lines that means the
    /// same in one line is joined to one line.
    ///
    /// # Errors
    /// [`SecretValueError`].
    pub fn of_document(bytes: &[u8]) -> Result<SecretValue, SecretValueError> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        SecretValue::new(one_line(bytes).unwrap_or_else(|| bytes.to_vec()))
    }

    /// Returns the value itself. Every call needs a review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Joins the formats with several lines that mean the same in one: a JSON object, and a private key in PEM form (RFC
/// 7468), which is reduced to its base64 text.
fn one_line(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains('\n'))?.trim();
    if text.starts_with('{') {
        let document: Box<serde_json::value::RawValue> = serde_json::from_str(text).ok()?;
        // Line ends are only between tokens: within strings they are escaped.
        return Some(document.get().bytes().filter(|b| !matches!(b, b'\n' | b'\r' | b'\t')).collect());
    }
    let (label, rest) = text.strip_prefix("-----BEGIN ")?.split_once("-----")?;
    let (body, end) = rest.split_once("-----END ")?;
    if !label.ends_with("PRIVATE KEY") || end.strip_suffix("-----") != Some(label) {
        return None;
    }
    let body: Vec<u8> = body.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    body.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')).then_some(body)
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_removed() {
        for text in ["sk-12345678", "sk-12345678\n", "sk-12345678\r\n"] {
            assert_eq!(SecretValue::of_document(text.as_bytes()).unwrap().expose(), b"sk-12345678");
        }
        assert!(SecretValue::of_document(b"sk-12345678\n\n").is_err());
        assert!(SecretValue::of_document(b"two\nlines here").is_err());
        assert!(SecretValue::of_document(b"\n").is_err());
    }

    #[test]
    fn documents_and_keys_are_stored_in_one_line() {
        let value = |text: &str| {
            SecretValue::of_document(text.as_bytes())
                .map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
        };
        let json = "{\n  \"a b\": \"c\\n d\",\r\n\t\"e\": 1\n}\n";
        assert_eq!(value(json).unwrap(), "{  \"a b\": \"c\\n d\",\"e\": 1}");
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE+/\r\nabc=\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(value(pem).unwrap(), "MIIE+/abc=");
        for bad in [
            "{\n not json at all }",
            "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nPr: x\n\nMIIE\n-----END PRIVATE KEY-----",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        ] {
            assert!(value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_bounded_and_never_printed() {
        assert_eq!(SecretValue::new(b"short".to_vec()).unwrap_err(), SecretValueError::TooShort);
        assert_eq!(SecretValue::new(vec![b'a'; 16_385]).unwrap_err(), SecretValueError::TooLong);
        assert_eq!(SecretValue::new(b"abcdefgh\n".to_vec()).unwrap_err(), SecretValueError::ControlCharacter);
        let value = SecretValue::new(b"correct horse".to_vec()).unwrap();
        assert!(!format!("{value:?}").contains("horse"));
    }
}
