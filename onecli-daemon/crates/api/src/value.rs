//! Credentials in requests.

use std::fmt;

use onecli_model::SecretValue;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A credential in a request from the CLI to the daemon: base64 in JSON, zeroed on drop, never part of a response.
#[derive(Debug, Clone)]
pub struct WireValue(pub SecretValue);

impl Serialize for WireValue {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(data_encoding::BASE64.encode(self.0.expose()));
        out.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for WireValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<WireValue, D::Error> {
        struct Base64;

        impl Base64 {
            const NOT_TEXT: &'static str = "the value must be a string in base64";
        }

        // serde's own messages quote a number or boolean found instead of a string. These messages do not.
        impl Visitor<'_> for Base64 {
            type Value = WireValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WireValue, E> {
                let bytes = data_encoding::BASE64
                    .decode(text.as_bytes())
                    .map_err(|_| E::custom("the value is not valid base64"))?;
                SecretValue::new(bytes).map(WireValue).map_err(E::custom)
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<WireValue, E> {
                Err(E::custom(Self::NOT_TEXT))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<WireValue, E> {
                Err(E::custom(Self::NOT_TEXT))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<WireValue, E> {
                Err(E::custom(Self::NOT_TEXT))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<WireValue, E> {
                Err(E::custom(Self::NOT_TEXT))
            }
        }

        from.deserialize_any(Base64)
    }
}
