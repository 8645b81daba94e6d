//! Searches for secret values where they must not appear (invariant 1).

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use data_encoding::{HEXLOWER, HEXUPPER};
use parking_lot::Mutex;

/// Values that the tests of this process gave to a daemon to store.
static WATCHED: Mutex<Vec<Arc<Canary>>> = Mutex::new(Vec::new());

/// Registers `value` as secret. From now on it must not appear in the output of a client or in a file of a daemon's
/// directory. The kit checks this when a program ends and when a daemon is dropped.
pub fn watch(value: &str) {
    if value.len() < SHORTEST {
        return;
    }
    let mut watched = WATCHED.lock();
    if !watched.iter().any(|canary| canary.forms[0].1 == value.as_bytes()) {
        watched.push(Arc::new(Canary::new(value)));
    }
}

fn watched() -> Vec<Arc<Canary>> {
    WATCHED.lock().clone()
}

/// Fails the test if `data` contains a watched value.
pub fn assert_clean(place: &str, data: &[u8]) {
    for canary in watched() {
        canary.assert_absent(place, data);
    }
}

/// Returns whether `data` contains a watched value.
#[must_use]
pub fn is_in(data: &[u8]) -> bool {
    watched().iter().any(|canary| !canary.find("", data).is_empty())
}

/// Fails the test if a file below `dir` contains a watched value.
pub fn assert_clean_dir(dir: &Path) {
    for canary in watched() {
        canary.assert_absent_in_dir(dir);
    }
}

/// The minimum length of a value, in bytes. Shorter values would match by chance.
const SHORTEST: usize = 8;

/// A value and the encodings that could hide it.
pub struct Canary {
    forms: Vec<(String, Vec<u8>)>,
}

/// One occurrence of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The file, or the label that the caller passed.
    pub place: String,
    /// `raw`, `hex`, `base64 +1`, ...
    pub form: String,
    /// Byte offset of the first occurrence.
    pub offset: usize,
}

impl Canary {
    /// A canary for `value`, which has at least 8 bytes: a shorter value would match by chance.
    #[must_use]
    pub fn new(value: &str) -> Self {
        assert!(value.len() >= SHORTEST, "a canary has at least {SHORTEST} bytes");
        let bytes = value.as_bytes();
        let mut forms = vec![
            ("raw".to_owned(), bytes.to_vec()),
            ("hex".to_owned(), HEXLOWER.encode(bytes).into_bytes()),
            ("HEX".to_owned(), HEXUPPER.encode(bytes).into_bytes()),
            ("percent, all".to_owned(), percent(value, |_| true)),
            ("percent, reserved".to_owned(), percent(value, |b| !b.is_ascii_alphanumeric())),
            (
                "percent, form".to_owned(),
                percent(value, |b| !b.is_ascii_alphanumeric() && !b"-_.~".contains(&b)),
            ),
            ("json".to_owned(), json(value)),
        ];
        let lower: Vec<_> = forms
            .iter()
            .filter(|(name, _)| name.starts_with("percent"))
            .map(|(name, form)| (format!("{name}, lower"), lower_escapes(form)))
            .collect();
        forms.extend(lower);
        // The base64 of the value depends on its offset in the encoded text, modulo 3.
        for shift in 0..3 {
            for (name, engine) in [("base64", BASE64_NOPAD), ("base64url", BASE64URL_NOPAD)] {
                let mut shifted = vec![0; shift];
                shifted.extend_from_slice(bytes);
                let text = engine.encode(&shifted);
                // Leaves out characters that also depend on the bytes before and after the value.
                let first = (shift * 8).div_ceil(6);
                let last = shifted.len() * 8 / 6;
                forms.push((format!("{name} +{shift}"), text.as_bytes()[first..last].to_vec()));
            }
        }
        let mut unique: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, form) in forms {
            if !unique.iter().any(|(_, known)| *known == form) {
                unique.push((name, form));
            }
        }
        Self { forms: unique }
    }

    /// Every encoding of the value that occurs in `data`.
    #[must_use]
    pub fn find(&self, place: &str, data: &[u8]) -> Vec<Hit> {
        let find = |form: &[u8]| memchr::memmem::find(data, form);
        self.forms
            .iter()
            .filter_map(|(name, form)| {
                find(form).map(|offset| Hit { place: place.to_owned(), form: name.clone(), offset })
            })
            .collect()
    }

    /// Every encoding of the value that occurs in a regular file below `dir` or in its name.
    #[must_use]
    pub fn find_in_dir(&self, dir: &Path) -> Vec<Hit> {
        let mut hits = Vec::new();
        let mut open = vec![dir.to_path_buf()];
        while let Some(dir) = open.pop() {
            let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
            for entry in entries {
                let entry = entry.expect("directory entry");
                let path = entry.path();
                let place = path.display().to_string();
                hits.extend(self.find(&format!("name of {place}"), entry.file_name().as_encoded_bytes()));
                let kind = entry.file_type().expect("file type");
                if kind.is_dir() {
                    open.push(path);
                } else if kind.is_file() {
                    // A file may disappear during the scan (SQLite's journal). A file that stays is readable.
                    match std::fs::read(&path) {
                        Ok(data) => hits.extend(self.find(&place, &data)),
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                        Err(e) => panic!("{place}: {e}"),
                    }
                }
            }
        }
        hits
    }

    /// Fails the test if `data` contains the value in any encoding.
    pub fn assert_absent(&self, place: &str, data: impl AsRef<[u8]>) {
        let hits = self.find(place, data.as_ref());
        assert!(hits.is_empty(), "the credential's value leaked: {hits:?}");
    }

    /// Fails the test if a file below `dir` contains the value in any encoding.
    pub fn assert_absent_in_dir(&self, dir: &Path) {
        let hits = self.find_in_dir(dir);
        assert!(hits.is_empty(), "the credential's value leaked: {hits:?}");
    }
}

fn percent(value: &str, escape: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = String::new();
    for byte in value.bytes() {
        if escape(byte) {
            write!(out, "%{byte:02X}").expect("writing to a String succeeds");
        } else {
            out.push(char::from(byte));
        }
    }
    out.into_bytes()
}

/// Changes `%2F` to `%2f` and copies all other bytes.
fn lower_escapes(form: &[u8]) -> Vec<u8> {
    let mut out = form.to_vec();
    let mut at = 0;
    while at + 2 < out.len() {
        if out[at] == b'%' {
            out[at + 1..at + 3].make_ascii_lowercase();
            at += 2;
        }
        at += 1;
    }
    out
}

/// The value as it appears inside a JSON string.
fn json(value: &str) -> Vec<u8> {
    let quoted = serde_json::to_string(value).expect("text is JSON");
    quoted.as_bytes()[1..quoted.len() - 1].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "sk-live/+a\"b=c%d~0123";

    fn forms(data: &[u8]) -> Vec<String> {
        Canary::new(VALUE).find("here", data).into_iter().map(|h| h.form).collect()
    }

    #[test]
    fn finds_every_encoding_and_nothing_else() {
        let base64 = |before: &str| BASE64_NOPAD.encode(format!("{before}{VALUE} and more").as_bytes());
        let cases: &[(String, &str)] = &[
            (format!("key={VALUE};"), "raw"),
            (HEXLOWER.encode(VALUE.as_bytes()), "hex"),
            (HEXUPPER.encode(VALUE.as_bytes()), "HEX"),
            (serde_json::json!({ "k": VALUE }).to_string(), "json"),
            (base64(""), "base64 +0"),
            (base64("a"), "base64 +1"),
            (base64("ab"), "base64 +2"),
            (base64("abc"), "base64 +0"),
            ("sk-live%2F%2Ba%22b%3Dc%25d~0123".to_owned(), "percent, form"),
            ("sk-live%2f%2ba%22b%3dc%25d~0123".to_owned(), "percent, form, lower"),
        ];
        for (data, form) in cases {
            assert!(forms(data.as_bytes()).iter().any(|f| f == form), "{form} in {data}");
        }
        for clean in ["", "sk-live/", "a placeholder: ocl_0123456789", "sk-live/+a\"b=c%d~012"] {
            assert_eq!(forms(clean.as_bytes()), Vec::<String>::new(), "{clean}");
        }
    }

    #[test]
    fn finds_base64url_where_it_differs() {
        let value = "key~~~???>>>";
        let text = BASE64URL_NOPAD.encode(format!("u:{value}").as_bytes());
        let hits = Canary::new(value).find("here", text.as_bytes());
        assert!(hits.iter().any(|h| h.form == "base64url +2"), "{hits:?} in {text}");
    }

    /// A search for absent values is only useful if it finds present ones.
    #[test]
    fn what_a_client_prints_is_looked_at() {
        let value = "watched-canary-77f0";
        watch(value);
        let _ = crate::client::Run::new("echo").arg("nothing").outcome();
        for script in ["echo watched-canary-77f0", "echo d2F0Y2hlZC1jYW5hcnktNzdmMA== >&2"] {
            let caught = std::panic::catch_unwind(|| {
                let _ = crate::client::Run::new("sh").args(["-c", script]).outcome();
            });
            assert!(caught.is_err(), "{script}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert_clean_dir(dir.path());
        std::fs::write(dir.path().join("daemon.log"), format!("secret={value}")).unwrap();
        assert!(std::panic::catch_unwind(|| assert_clean_dir(dir.path())).is_err());
    }

    #[test]
    fn looks_into_every_file_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let value = "canary-0123456789";
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/clean"), "nothing").unwrap();
        let canary = Canary::new(value);
        assert_eq!(canary.find_in_dir(dir.path()), []);
        std::fs::write(dir.path().join("a/b/dirty"), format!("..{value}")).unwrap();
        std::fs::write(dir.path().join(value), "").unwrap();
        let places: Vec<_> = canary.find_in_dir(dir.path()).into_iter().map(|h| h.place).collect();
        assert_eq!(places.len(), 2, "{places:?}");
    }
}
