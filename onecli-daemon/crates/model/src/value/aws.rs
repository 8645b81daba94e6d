//! Keys of Amazon Web Services, in one value.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::secret_value::SecretValue;

/// An access key: `ID:SECRET`, `ID:SECRET:TOKEN`, or JSON in the format of `aws sts` and the metadata service.
pub struct AwsKeys {
    /// The access key's id, which is not secret.
    pub id: String,
    /// The secret access key.
    pub secret: SecretValue,
    /// The session token of temporary keys.
    pub token: Option<SecretValue>,
}

/// The text is not an access key. The error never contains the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the value is not an AWS access key: write ID:SECRET or ID:SECRET:TOKEN, or JSON with AccessKeyId, SecretAccessKey and, \
     for temporary keys, SessionToken"
)]
pub struct AwsKeysError;

#[derive(Deserialize)]
struct Json {
    #[serde(rename = "AccessKeyId", alias = "aws_access_key_id", alias = "access_key_id")]
    id: Zeroizing<String>,
    #[serde(rename = "SecretAccessKey", alias = "aws_secret_access_key", alias = "secret_access_key")]
    secret: Zeroizing<String>,
    #[serde(rename = "SessionToken", alias = "Token", alias = "aws_session_token", alias = "session_token")]
    token: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct Wrapped {
    #[serde(rename = "Credentials")]
    inner: Json,
}

impl AwsKeys {
    /// Parses a stored value.
    ///
    /// # Errors
    /// [`AwsKeysError`].
    pub fn parse(value: &SecretValue) -> Result<AwsKeys, AwsKeysError> {
        let text = std::str::from_utf8(value.expose()).map_err(|_| AwsKeysError)?.trim();
        if text.starts_with('{') {
            let json = serde_json::from_str::<Json>(text)
                .or_else(|_| serde_json::from_str::<Wrapped>(text).map(|wrapped| wrapped.inner))
                .map_err(|_| AwsKeysError)?;
            return AwsKeys::new(&json.id, &json.secret, json.token.as_ref().map(|token| token.as_str()));
        }
        let mut parts = text.splitn(3, ':');
        let (Some(id), Some(secret)) = (parts.next(), parts.next()) else { return Err(AwsKeysError) };
        AwsKeys::new(id, secret, parts.next())
    }

    fn new(id: &str, secret: &str, token: Option<&str>) -> Result<AwsKeys, AwsKeysError> {
        let value = |text: &str| SecretValue::new(text.as_bytes().to_vec()).map_err(|_| AwsKeysError);
        // The id becomes part of a credential scope, in which slashes separate the parts and a comma follows.
        let ok = (3..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b',' | b'='));
        if !ok {
            return Err(AwsKeysError);
        }
        let token = token.filter(|token| !token.is_empty()).map(value).transpose()?;
        Ok(AwsKeys { id: id.to_owned(), secret: value(secret)?, token })
    }
}

impl fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_each_form() {
        let check = |text: &str, expected: Option<(&str, &str, Option<&str>)>| {
            let value = SecretValue::new(text.as_bytes().to_vec()).unwrap();
            let keys = AwsKeys::parse(&value).ok();
            let text_of = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).unwrap();
            let got = keys.map(|keys| (keys.id, text_of(&keys.secret), keys.token.as_ref().map(text_of)));
            let got =
                got.as_ref().map(|(id, secret, token)| (id.as_str(), secret.as_str(), token.as_deref()));
            assert_eq!(got, expected, "{text}");
        };
        check("AKIDEXAMPLE:secret/key+1", Some(("AKIDEXAMPLE", "secret/key+1", None)));
        check(
            "AKIDEXAMPLE:secret/key+1:to/ken:x==",
            Some(("AKIDEXAMPLE", "secret/key+1", Some("to/ken:x=="))),
        );
        let json = r#"{"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret/key","SessionToken":"to/ken==","Expiration":"x"}"#;
        check(json, Some(("AKIDEXAMPLE", "secret/key", Some("to/ken=="))));
        check(&format!(r#"{{"Credentials":{json}}}"#), Some(("AKIDEXAMPLE", "secret/key", Some("to/ken=="))));
        check("AKIDEXAMPLE", None);
        check("AKID/EXAMPLE:secret/key", None);
        check("AKIDEXAMPLE:short", None);
        check("{\"AccessKeyId\":\"AKIDEXAMPLE\"}", None);
    }
}
