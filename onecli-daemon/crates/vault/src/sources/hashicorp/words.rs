//! The parts of the server's responses that the client reads. Values are read into memory that is zeroed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::error::BackendError;
use super::wire::Answer;

/// A field of a secret: its text, or `None` if it is a list or an object.
#[derive(Clone)]
pub(super) struct Field(pub(super) Option<Zeroizing<String>>);

impl Field {
    /// The bytes of its text.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |text| text.len())
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Field(..)")
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Field, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Field, E> {
                Ok(Field(Some(Zeroizing::new(text.to_owned()))))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Field, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Field, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Field, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Field, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_unit<E: de::Error>(self) -> Result<Field, E> {
                Ok(Field(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
                while items.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(Field(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field, A::Error> {
                while entries.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
                Ok(Field(None))
            }
        }
        from.deserialize_any(Reads)
    }
}

/// The longest accepted lifetime, in seconds. A longer one is equivalent, and would overflow when added to the
/// clock.
const LONGEST: u64 = 10 * 365 * 24 * 60 * 60;

/// Parses a lifetime in seconds.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(u64::deserialize(from)?.min(LONGEST))
}

/// Parses the server's id of a lease, which goes to the store.
fn lease_id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let id = String::deserialize(from)?;
    if id.len() <= 1024 && id.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(id)
    } else {
        Err(de::Error::custom("not a lease id"))
    }
}

/// The fields of one secret.
pub(super) type Fields = BTreeMap<String, Field>;

/// A read of KV version 1 or of anything that returns a lease.
#[derive(Debug, Deserialize)]
pub(super) struct Plain {
    #[serde(default, deserialize_with = "lease_id")]
    pub(super) lease_id: String,
    #[serde(default, deserialize_with = "seconds")]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
    pub(super) data: Option<Fields>,
}

/// A read of KV version 2.
#[derive(Debug, Deserialize)]
pub(super) struct Versioned {
    pub(super) data: Option<VersionedData>,
}

#[derive(Debug, Deserialize)]
pub(super) struct VersionedData {
    pub(super) data: Option<Fields>,
    pub(super) metadata: Metadata,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) version: u32,
}

/// `sys/internal/ui/mounts/PATH`.
#[derive(Debug, Deserialize)]
pub(super) struct Mounted {
    pub(super) data: Mount,
}

#[derive(Debug, Deserialize)]
pub(super) struct Mount {
    /// Ends with `/`.
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) options: Option<BTreeMap<String, String>>,
}

/// A login or the renewal of a token.
#[derive(Debug, Deserialize)]
pub(super) struct LoggedIn {
    pub(super) auth: Option<AuthBlock>,
}

#[derive(Deserialize)]
pub(super) struct AuthBlock {
    pub(super) client_token: Field,
    #[serde(default, deserialize_with = "seconds")]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

impl fmt::Debug for AuthBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthBlock(..)")
    }
}

/// `auth/token/lookup-self`.
#[derive(Debug, Deserialize)]
pub(super) struct LookedUp {
    pub(super) data: TokenFacts,
}

#[derive(Debug, Deserialize)]
pub(super) struct TokenFacts {
    #[serde(default, deserialize_with = "seconds")]
    pub(super) ttl: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// `sys/wrapping/lookup`.
#[derive(Debug, Deserialize)]
pub(super) struct Wrapping {
    pub(super) data: WrappingFacts,
}

#[derive(Debug, Deserialize)]
pub(super) struct WrappingFacts {
    #[serde(default)]
    pub(super) creation_path: String,
}

/// `sys/leases/renew`.
#[derive(Debug, Deserialize)]
pub(super) struct Renewed {
    #[serde(default, deserialize_with = "seconds")]
    pub(super) lease_duration: u64,
}

/// `sys/health`.
#[derive(Debug, Deserialize)]
pub(super) struct Health {
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) sealed: bool,
    #[serde(default)]
    pub(super) standby: bool,
    #[serde(default)]
    pub(super) initialized: bool,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

/// Parses a successful response.
pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &str, answer: &Answer) -> Result<T, BackendError> {
    if !answer.status.is_success() {
        return Err(unexpected(path, answer));
    }
    // serde_json's errors contain line and column, and for a wrong type the value. Only the position is reported.
    serde_json::from_slice(&answer.body).map_err(|error| BackendError::Answer {
        path: path.to_owned(),
        reason: format!("unexpected JSON, at line {} column {}", error.line(), error.column()),
    })
}

/// The server's message, bounded and printable.
pub(super) fn reason(answer: &Answer) -> String {
    let errors = serde_json::from_slice::<Errors>(&answer.body).map(|said| said.errors).unwrap_or_default();
    let text = if errors.is_empty() { "no reason given".to_owned() } else { errors.join("; ") };
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .filter(|c| !c.is_control())
        .collect()
}

pub(super) fn unexpected(path: &str, answer: &Answer) -> BackendError {
    match answer.status.as_u16() {
        403 => BackendError::Denied { path: path.to_owned() },
        404 => BackendError::NoSuchPath { path: path.to_owned(), version: None },
        status => BackendError::Status { path: path.to_owned(), status, reason: reason(answer) },
    }
}
