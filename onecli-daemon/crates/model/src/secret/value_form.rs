//! Detection of values that do not look like the credential they are stored as. Checks for text that people paste
//! around a value, and for the form that a template documents. A fault never quotes the value.

use super::profile::Profile;
use crate::identity::token::{Placeholder, Token};
use crate::pattern::HostPattern;
use crate::pattern::host_set::HostSet;
use crate::placement::Placement;
use crate::template::Template;
use crate::template::credential_form::ValueForm;
use crate::value::secret_value::SecretValue;

/// Words that a client puts before a token (RFC 9110 section 11.1, and additions by services).
const SCHEMES: [&str; 5] = ["Bearer", "Basic", "Token", "Bot", "ApiKey"];
/// The endings of names of variables that hold credentials.
const CREDENTIALS: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PAT"];
/// Texts that web pages show instead of a part of a value.
const MASKS: [&str; 4] = ["***", "...", "\u{2022}", "\u{2026}"];
/// Texts that documentation and sample files contain instead of a value, in lower case.
const SAMPLES: [&str; 8] = [
    "your_api_key",
    "your-api-key",
    "yourapikey",
    "changeme",
    "change_me",
    "replace_me",
    "placeholder",
    "example_key",
];
/// Characters that fill up samples.
const FILLERS: &str = "xX*0.-_";
/// The number of fillers in a row that does not occur in a credential by chance.
const FILLED: usize = 8;
const QUOTES: [(&str, &str); 5] =
    [("\"", "\""), ("'", "'"), ("`", "`"), ("\u{201c}", "\u{201d}"), ("\u{2018}", "\u{2019}")];

impl ValueForm {
    fn fault(&self, text: &[u8], title: &'static str) -> Option<ValueFault> {
        let begins = || self.begins.iter().any(|prefix| text.starts_with(prefix.as_bytes()));
        if !self.begins.is_empty() && !begins() {
            return Some(ValueFault::Prefix { title, begins: self.begins.join(", ") });
        }
        (text.len() < self.least).then_some(ValueFault::Short { title, least: self.least })
    }
}

/// A reason why a value may not be the credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// The value contains text that the placement adds itself.
    #[error("it begins with '{0}', which OneCLI adds itself")]
    Added(String),
    /// The value contains a scheme of HTTP authentication.
    #[error("it begins with '{0}', which is not part of a credential")]
    Scheme(&'static str),
    /// The value is `NAME=...` or `export NAME=...`.
    #[error("it begins with a variable's name and '='; enter only the text after them")]
    Assignment,
    /// The value is `$NAME`: a shell did not expand it.
    #[error("it is the name of a shell variable, not its value")]
    Unexpanded,
    /// The value contains `${NAME}` or `$(command)`: neither a shell nor a program expanded it.
    #[error("it contains '${{...}}' or '$(...)', which nothing expanded")]
    Expression,
    /// The value is from documentation or a sample file.
    #[error("it looks like a sample, not like a credential")]
    Sample,
    /// The value is a token by which OneCLI identifies agents.
    #[error("it is a token of OneCLI itself")]
    OwnToken,
    /// The value has quotes around it.
    #[error("it has quotes around it")]
    Quotes,
    /// The value has white space around it.
    #[error("it begins or ends with white space")]
    OuterSpace,
    /// The value has white space within it.
    #[error("it has white space in it")]
    InnerSpace,
    /// The value contains typographic or invisible characters.
    #[error("it contains characters beyond ASCII")]
    NotAscii,
    /// The value is a placeholder of OneCLI.
    #[error("it is a placeholder of OneCLI, not a credential")]
    Placeholder,
    /// The value was copied from a page that hides a part.
    #[error("a part of it is masked, as web pages show credentials")]
    Masked,
    /// The value does not have a prefix from the template.
    #[error("it does not begin like a credential of {title} ({begins})")]
    Prefix {
        /// The service.
        title: &'static str,
        /// The possible prefixes.
        begins: String,
    },
    /// The value is shorter than the template's minimum.
    #[error("it is shorter than a credential of {title}, which has at least {least} characters")]
    Short {
        /// The service.
        title: &'static str,
        /// The minimum number of bytes.
        least: usize,
    },
}

/// The use of a stored value.
#[derive(Debug, Clone, Copy)]
pub struct ValueUse<'u> {
    /// The placement.
    pub placement: &'u Placement,
    /// Its template, and its conversion into a token.
    pub profile: &'u Profile,
    /// Its destinations.
    pub hosts: &'u HostSet,
    /// The variables that programs read it from, separated by commas.
    pub env: Option<&'u str>,
}

impl ValueUse<'_> {
    /// Returns the faults of `value`. The form from the template is checked only if there are no other faults.
    pub fn faults(&self, value: &SecretValue) -> Vec<ValueFault> {
        let bytes = value.expose();
        let text = String::from_utf8_lossy(bytes);
        let mut faults = Vec::new();
        if text.trim() != text {
            faults.push(ValueFault::OuterSpace);
        }
        let text = text.trim();
        if Placeholder::find_all(bytes).next().is_some() {
            faults.push(ValueFault::Placeholder);
        } else if Token::PREFIXES.iter().any(|prefix| text.contains(prefix)) {
            faults.push(ValueFault::OwnToken);
        } else if !text.starts_with('{') && is_sample(text) {
            faults.push(ValueFault::Sample);
        }
        // A JSON document has its own parser.
        if !text.starts_with('{') {
            faults.extend(self.prefix(text).into_iter().chain(wrapping(text)));
            faults.extend(self.is_token().then(|| garbled(text)).flatten());
        }
        if faults.is_empty() {
            faults.extend(self.form().and_then(|(form, title)| form.fault(bytes, title)));
        }
        faults
    }

    /// Returns a fault for text before the value.
    fn prefix(&self, text: &str) -> Option<ValueFault> {
        let mut added = self.placement.added_texts().into_iter().filter(|added| !added.is_empty());
        if let Some(added) = added.find(|added| is_before(text, added)) {
            return Some(ValueFault::Added(added));
        }
        if self.placement.includes_scheme() {
            return None;
        }
        let scheme = SCHEMES.into_iter().find(|scheme| is_before(text, &format!("{scheme} ")));
        scheme.map(ValueFault::Scheme).or_else(|| self.is_assignment(text).then_some(ValueFault::Assignment))
    }

    /// Detects `export A=...`, and `A=...` if the name `A` is usual for variables of credentials. Other text before a
    /// `=` may be part of the value.
    fn is_assignment(&self, text: &str) -> bool {
        let exported = text.strip_prefix("export ").map(str::trim_start);
        let Some((name, value)) = exported.unwrap_or(text).split_once('=') else { return false };
        let name = name.trim_end().to_ascii_uppercase();
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
        // Base64 ends in `=`.
        let is_padding = value.bytes().all(|b| b == b'=');
        let is_own = || self.env.is_some_and(|env| env.split(',').any(|own| own == name));
        let is_usual = || CREDENTIALS.iter().any(|end| name.ends_with(end));
        is_name && !is_padding && (exported.is_some() || is_own() || is_usual())
    }

    /// Passwords are not tokens and may have any character.
    fn is_token(&self) -> bool {
        self.profile.mint.is_none() && self.placement.is_token()
    }

    /// Returns the form from the template, if all hosts are the template's. Another host may be another service.
    fn form(&self) -> Option<(&'static ValueForm, &'static str)> {
        let template = self.profile.template?.template();
        self.hosts.iter().all(|host| is_own(template, host)).then_some((&template.value, &template.title))
    }
}

fn is_own(template: &Template, host: &HostPattern) -> bool {
    let narrow = template.profiles.iter().flat_map(|profile| &profile.hosts);
    template.hosts.iter().chain(narrow).any(|own| match host {
        HostPattern::Exact(host) => own.matches(host),
        pattern => own == pattern,
    })
}

fn is_before(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        && (prefix.ends_with([' ', ':']) || text[prefix.len()..].starts_with(char::is_whitespace))
}

/// Returns a fault for text around the value, or in place of it.
fn wrapping(text: &str) -> Option<ValueFault> {
    let within =
        |(open, close): &(&str, &str)| text.len() > 1 && text.starts_with(open) && text.ends_with(close);
    if QUOTES.iter().any(within) {
        return Some(ValueFault::Quotes);
    }
    let is_expression = || has_expression(text).then_some(ValueFault::Expression);
    is_variable(text).then_some(ValueFault::Unexpanded).or_else(is_expression)
}

/// Returns whether the text is exactly `$NAME` or `${NAME}`.
fn is_variable(text: &str) -> bool {
    let Some(name) = text.strip_prefix('$') else { return false };
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// Returns whether the text contains `${NAME}` or `$(command)`.
fn has_expression(text: &str) -> bool {
    text.match_indices('$').any(|(at, _)| {
        let rest = &text[at + 1..];
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        name.is_some_and(|(name, _)| is_name(name)) || (rest.starts_with('(') && rest.contains(')'))
    })
}

/// Returns whether the text is `<your key>`, a word from documentation, or a row of fillers.
fn is_sample(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_filled = |filler: char| text.contains(&filler.to_string().repeat(FILLED));
    (text.starts_with('<') && text.ends_with('>'))
        || SAMPLES.iter().any(|sample| lower.contains(sample))
        // A private key in PEM begins and ends with rows of dashes.
        || (!text.starts_with("-----BEGIN ") && FILLERS.chars().any(is_filled))
}

/// Returns a fault for characters that no token contains.
fn garbled(text: &str) -> Option<ValueFault> {
    if MASKS.iter().any(|mask| text.contains(mask)) {
        return Some(ValueFault::Masked);
    }
    if text.contains(char::is_whitespace) {
        return Some(ValueFault::InnerSpace);
    }
    (!text.is_ascii()).then_some(ValueFault::NotAscii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_text(placement: &Placement, template: Option<&str>, host: &str, value: &str) -> String {
        let profile = Profile { template: template.map(|name| name.parse().unwrap()), ..Profile::default() };
        let hosts = host.parse().unwrap();
        let used =
            ValueUse { placement, profile: &profile, hosts: &hosts, env: Some("OPENAI_API_KEY,OWN_NAME") };
        let value = SecretValue::new(value.as_bytes().to_vec()).unwrap();
        let faults: Vec<String> = used.faults(&value).iter().map(ToString::to_string).collect();
        let fault_text = faults.join("; ");
        assert!(!fault_text.contains("a1b2c3"), "a part of the value: {fault_text}");
        fault_text
    }

    fn check(placement: &Placement, value: &str, expected: &str) {
        let fault_text = fault_text(placement, None, "api.test", value);
        assert!(
            if expected.is_empty() { fault_text.is_empty() } else { fault_text.contains(expected) },
            "{value}: '{fault_text}'"
        );
    }

    #[test]
    fn text_around_a_value_is_a_fault() {
        let bearer = Placement::bearer();
        for (value, expected) in [
            ("sk-a1b2c3a1b2c3", ""),
            ("QTFiMmMzYTFiMmMz==", ""),
            ("user_a1b2c3=a1b2c3", ""),
            ("BearerOfa1b2c3", ""),
            ("Bearer sk-a1b2c3a1b2c3", "begins with 'Bearer'"),
            ("bearer  sk-a1b2c3a1b2c3", "begins with 'Bearer'"),
            ("Authorization: Bearer a1b2c3a1b2c3", "begins with 'authorization:'"),
            ("Token a1b2c3a1b2c3", "begins with 'Token'"),
            ("OPENAI_API_KEY=sk-a1b2c3", "variable's name"),
            ("export ANY=sk-a1b2c3", "variable's name"),
            ("my_token = a1b2c3", "variable's name"),
            ("own_name=a1b2c3", "variable's name"),
            ("$OPENAI_API_KEY", "shell variable"),
            ("${OPENAI_API_KEY}", "shell variable"),
            ("\"sk-a1b2c3a1b2c3\"", "quotes"),
            ("'sk-a1b2c3a1b2c3'", "quotes"),
            ("\u{201c}sk-a1b2c3a1b2c3\u{201d}", "quotes"),
            (" sk-a1b2c3a1b2c3", "white space"),
            ("sk-a1b2c3a1b2c3 ", "white space"),
            ("sk-a1b2c3 a1b2c3", "white space in it"),
            ("sk-a1b2c3\u{200b}a1b2c3", "beyond ASCII"),
            ("sk-a1b2...c3a1", "masked"),
            ("sk-proj-onecli_ph_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "placeholder"),
        ] {
            check(&bearer, value, expected);
        }
    }

    #[test]
    fn samples_are_faults_in_every_placement() {
        for placement in [Placement::bearer(), Placement::basic("u").unwrap()] {
            for (value, expected) in [
                ("sk-${OPENAI_API_KEY}", "which nothing expanded"),
                ("${openai_key}", "which nothing expanded"),
                ("sk-$(cat-key)", "which nothing expanded"),
                ("sk-xxxxxxxx", "sample"),
                ("XXXXXXXXXXXX", "sample"),
                ("sk-********", "sample"),
                ("sk-00000000", "sample"),
                ("sk-........", "sample"),
                ("________", "sample"),
                ("--------", "sample"),
                ("your_api_key", "sample"),
                ("sk-YOUR-API-KEY-here", "sample"),
                ("YourApiKey", "sample"),
                ("changeme", "sample"),
                ("Change_Me!", "sample"),
                ("replace_me", "sample"),
                ("PLACEHOLDER", "sample"),
                ("example_key", "sample"),
                ("<your-key>", "sample"),
                ("onecli_at_0123456789012345678901234567890123456789012", "token of OneCLI"),
                ("onecli_st_0123456789012345678901234567890123456789012", "token of OneCLI"),
                // Seven fillers in a row, other characters in a row, and characters of a password.
                ("sk-xxxxxxx", ""),
                ("sk-aaaaaaaaaaaaaaaa", ""),
                ("pa$s{w}o(r)d", ""),
                ("a<b>c1d2e3", ""),
            ] {
                check(&placement, value, expected);
            }
        }
        // Rows of dashes belong to the form of a private key.
        let basic = Placement::basic("u").unwrap();
        check(&basic, "-----BEGIN KEY----------END KEY-----", "");
    }

    #[test]
    fn a_password_may_have_any_character() {
        let basic = Placement::basic("u").unwrap();
        for value in ["correct horse battery", "p\u{e4}ssw\u{f6}rd1", "wait...what1", "tokenless=1"] {
            check(&basic, value, "");
        }
        check(&basic, "Basic a1b2c3a1b2c3", "begins with 'Basic'");
        check(&basic, "PASSWORD=a1b2c3", "variable's name");
    }

    #[test]
    fn scheme_is_allowed_in_a_whole_header_value() {
        check(
            &Placement::header("authorization: {secret}").unwrap(),
            "Bearer a1b2c3a1b2c3".trim(),
            "white space",
        );
        check(&Placement::header("x-key: {secret}").unwrap(), "Bearer a1b2c3a1b2c3", "begins with 'Bearer'");
    }

    #[test]
    fn template_form_applies_at_its_own_hosts_only() {
        let bearer = Placement::bearer();
        let fault_text = |host, value| fault_text(&bearer, Some("openai"), host, value);
        assert!(
            fault_text("api.openai.com", "not-a-key-a1b2c3")
                .contains("does not begin like a credential of OpenAI")
        );
        assert!(fault_text("api.openai.com", "sk-a1b2c3").contains("shorter"));
        assert_eq!(fault_text("api.openai.com", "sk-proj-a1b2c3a1b2c3a1b2c3"), "");
        // A self-hosted server has its own form of keys.
        assert_eq!(fault_text("llm.acme.test", "not-a-key-a1b2c3"), "");
    }

    #[test]
    fn json_documents_are_not_checked() {
        check(&Placement::bearer(), "{\"key\": \"a1b2c3 ...\"}", "");
    }

    #[test]
    fn placeholders_have_the_prefix_of_values() {
        // A minted token looks different from the value it is minted from.
        let is_placed = |template: &&Template| !template.value.begins.is_empty() && template.mint.is_none();
        for template in Template::all().iter().filter(is_placed) {
            let (prefix, name) = (template.shape.prefix(), &template.name);
            let begins = |own: &String| own.starts_with(prefix) || prefix.starts_with(own.as_str());
            assert!(prefix.is_empty() || template.value.begins.iter().any(begins), "{name}");
            assert!(template.value.least >= 8, "{name}");
        }
    }
}
