//! What a denial requires of a request in addition to its method, host and path.

use std::str::FromStr;

use http::header::HeaderName;

/// The requirement of a denial in addition to method, host and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The request has this parameter. Its value matches the pattern, or may be any if there is no pattern.
    Parameter {
        /// In lower case.
        name: String,
        /// In lower case, `*` for any characters.
        value: Option<String>,
        /// Whether the service also reads it from a form body, or from a JSON body if it has no value here.
        in_body: bool,
    },
    /// The request has this header field, and its value matches the pattern.
    Header {
        /// The field's name.
        name: HeaderName,
        /// In lower case, `*` for any characters.
        value: String,
    },
    /// The request names an operation of AWS: `Action=NAME`, `X-Amz-Target: PREFIX.NAME` or
    /// `/service/SERVICE/operation/NAME`.
    Operation {
        /// In lower case.
        name: String,
        /// Whether the service reads the action from a form body.
        in_form: bool,
    },
    /// The body contains a word, such as the name of a GraphQL field.
    Word(String),
}

impl FromStr for Condition {
    type Err = String;

    /// Parses `?NAME` or `?NAME=VALUE` for the query alone, `&NAME` or `&NAME=VALUE` for query or body,
    /// `FIELD:VALUE`, `~WORD`.
    fn from_str(text: &str) -> Result<Condition, String> {
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase() || b == b'%');
        if !lower {
            return Err("write conditions in lower case, without escapes".to_owned());
        }
        for (mark, in_body) in [('?', false), ('&', true)] {
            if let Some(parameter) = text.strip_prefix(mark) {
                let (name, value) = match parameter.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (parameter, None),
                };
                return Ok(Condition::Parameter { name: name.to_owned(), value, in_body });
            }
        }
        if let Some(word) = text.strip_prefix('~') {
            return Ok(Condition::Word(word.to_owned()));
        }
        let (name, value) = text
            .split_once(':')
            .ok_or("write a condition as ?NAME=VALUE, &NAME=VALUE, FIELD:VALUE or ~WORD")?;
        let name = name.parse().map_err(|_| format!("'{name}' is not a header field"))?;
        Ok(Condition::Header { name, value: value.to_owned() })
    }
}
