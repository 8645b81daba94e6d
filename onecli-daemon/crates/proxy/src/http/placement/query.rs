//! Places a credential in a query parameter.

use onecli_model::placement::Query;
use onecli_model::{RESERVED, Refusal, SecretValue};
use onecli_vault::Credential;
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::kind::{Inject, Outgoing, unusable};

impl Inject for Query {
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal> {
        let head = &mut outgoing.head;
        let query = set_query(head.query.as_deref(), &self.name, credential.value());
        head.query = Some(query.ok_or_else(|| unusable(credential))?);
        Ok(())
    }
}

/// Removes every parameter of this name, and appends the real one.
pub(crate) fn set_query(query: Option<&str>, name: &str, value: &SecretValue) -> Option<String> {
    let value = std::str::from_utf8(value.expose()).ok()?;
    let is_copy = |pair: &str| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        percent_decode_str(key).decode_utf8_lossy() == name
    };
    let mut out = String::new();
    // Some servers also separate parameters with `;`, so a copy must not hide after it.
    for pair in query.unwrap_or_default().split('&') {
        if pair.is_empty() || pair.split(';').any(is_copy) {
            continue;
        }
        out.push_str(pair);
        out.push('&');
    }
    out.push_str(name);
    out.push('=');
    out.extend(utf8_percent_encode(value, RESERVED));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_of_a_query_parameter_is_removed() {
        let value = SecretValue::new(b"a b&c=d/e+f".to_vec()).unwrap();
        let check = |query: Option<&str>, expected: &str| {
            assert_eq!(set_query(query, "key", &value).unwrap(), expected, "{query:?}");
        };
        check(None, "key=a%20b%26c%3Dd%2Fe%2Bf");
        check(Some("a=1&key=x&b=2"), "a=1&b=2&key=a%20b%26c%3Dd%2Fe%2Bf");
        check(Some("%6bey=x&key&keys=1&key=y"), "keys=1&key=a%20b%26c%3Dd%2Fe%2Bf");
        check(Some("a=1;key=x"), "key=a%20b%26c%3Dd%2Fe%2Bf");
    }
}
