//! Sources of existing credentials, and the templates that they match.

use std::collections::BTreeMap;
use std::path::PathBuf;

use configparser::ini::Ini;
use onecli_model::template::Template;
use onecli_model::{Host, RequestPart, SecretName, SecretValue};
use zeroize::Zeroizing;

use super::args::SourceKind;
use super::{files, netrc};
use crate::input::dotenv;

const AWS_ID: &str = "AWS_ACCESS_KEY_ID";
const AWS_SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const AWS_TOKEN: &str = "AWS_SESSION_TOKEN";
/// The AWS profile without a name.
const DEFAULT: &str = "default";

/// A source of credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Environment variables.
    Variables(Vec<String>),
    /// The GitHub CLI.
    Gh(PathBuf),
    /// A netrc file.
    Netrc(PathBuf),
    /// A file of `NAME=VALUE` lines.
    Dotenv(PathBuf),
    /// AWS profiles.
    Aws(PathBuf),
}

/// An existing credential.
pub(super) struct FoundCredential {
    /// The secret to create.
    pub(super) name: SecretName,
    /// Further arguments of `secret add`.
    pub(super) options: Vec<String>,
    /// The credential's source.
    pub(super) origin: String,
    /// The credential.
    pub(super) value: SecretValue,
    /// The command that removes the original.
    pub(super) remove: String,
}

/// The content of one source.
pub(super) struct SourceContents {
    /// Credentials.
    pub(super) found: Vec<FoundCredential>,
    /// Variables of templates without a usable value, and the reason. No value is quoted.
    pub(super) unusable: Vec<String>,
}

impl From<Vec<FoundCredential>> for SourceContents {
    fn from(found: Vec<FoundCredential>) -> SourceContents {
        SourceContents { found, unusable: Vec::new() }
    }
}

impl Source {
    /// Returns the source if it exists, without reading it.
    pub(super) fn of(kind: SourceKind) -> Option<Source> {
        let home = |name: &str| Some(std::env::home_dir()?.join(name));
        let file_of =
            |variable: &str, name: &str| std::env::var_os(variable).map(PathBuf::from).or_else(|| home(name));
        let existing = |path: Option<PathBuf>| path.filter(|path| path.symlink_metadata().is_ok());
        match kind {
            SourceKind::Env => {
                let names = variables();
                (!names.is_empty()).then_some(Source::Variables(names))
            }
            SourceKind::Gh => files::program("gh").map(Source::Gh),
            SourceKind::Netrc => existing(file_of("NETRC", ".netrc")).map(Source::Netrc),
            SourceKind::Dotenv => {
                existing(std::env::current_dir().ok().map(|dir| dir.join(".env"))).map(Source::Dotenv)
            }
            SourceKind::Aws => {
                existing(file_of("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")).map(Source::Aws)
            }
        }
    }

    /// Returns the text for the question before the source is read.
    pub(super) fn label(&self) -> String {
        match self {
            Source::Variables(names) => format!("the variables {} of your environment", names.join(", ")),
            Source::Gh(path) => format!("what '{} auth token' prints", path.display()),
            Source::Netrc(path) | Source::Dotenv(path) | Source::Aws(path) => {
                format!("the file {}", path.display())
            }
        }
    }

    /// Reads the source with the user's rights.
    ///
    /// # Errors
    /// Why it cannot be read. No value is quoted.
    pub(super) fn read(&self) -> Result<SourceContents, String> {
        Ok(match self {
            Source::Variables(names) => of_variables(names).into(),
            Source::Gh(path) => of_gh(path)?.into(),
            Source::Netrc(path) => of_netrc(&files::read(path)?, &path.display().to_string()).into(),
            Source::Dotenv(path) => {
                let (text, path) = (files::read(path)?, path.display().to_string());
                SourceContents { found: of_dotenv(&text, &path), unusable: unusable(&text, &path) }
            }
            Source::Aws(path) => of_aws(&files::read(path)?, &path.display().to_string())?.into(),
        })
    }
}

/// Returns the set variables that belong to templates.
fn variables() -> Vec<String> {
    let mut names: Vec<String> = Template::all().iter().flat_map(|template| template.env.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    names
}

fn of_variables(names: &[String]) -> Vec<FoundCredential> {
    let value =
        |name: &str| SecretValue::new(Zeroizing::new(std::env::var(name).ok()?).as_bytes().to_vec()).ok();
    let with_token = names.iter().map(String::as_str).chain([AWS_TOKEN]);
    let values = with_token.filter_map(|name| Some((name.to_owned(), value(name)?))).collect();
    let origin = |name: &str| format!("the variable {name}");
    let remove = |name: &str| {
        format!("unset {name}   # and remove it where your shell sets it (~/.profile, ~/.bashrc)")
    };
    named(values, &origin, &remove)
}

fn of_dotenv(text: &str, path: &str) -> Vec<FoundCredential> {
    let (values, _) = dotenv::read(text);
    let values = values.into_iter().map(|named| (named.name, named.value.0)).collect();
    let origin = |name: &str| format!("{name} in {path}");
    // A byte order mark precedes the first line.
    let mark = if text.starts_with(dotenv::MARK) { r"1s/^\xEF\xBB\xBF//; " } else { "" };
    let remove = |name: &str| {
        let pattern = name.replace(' ', r"\|");
        format!(
            r"sed -i '{mark}/^[[:space:]]*\(export[[:space:]][[:space:]]*\)\?\({pattern}\)[[:space:]]*=/d' {}",
            quoted(path)
        )
    };
    named(values, &origin, &remove)
}

/// Returns the variables of templates whose line cannot be used.
fn unusable(text: &str, path: &str) -> Vec<String> {
    let (_, unusable) = dotenv::read(text);
    let of_template = unusable.into_iter().filter(|one| template_of(&one.name).is_some());
    of_template.map(|one| format!("{} in {path}: {}", one.name, one.reason.unwrap_or_default())).collect()
}

/// Returns the credentials of variables that have a template. The AWS keys become one credential.
fn named(
    mut values: BTreeMap<String, SecretValue>,
    origin: &dyn Fn(&str) -> String,
    remove: &dyn Fn(&str) -> String,
) -> Vec<FoundCredential> {
    let mut found = Vec::new();
    let parts = [AWS_ID, AWS_SECRET, AWS_TOKEN].map(|name| values.remove(name));
    if let [Some(id), Some(secret), token] = &parts {
        let value = joined(id.expose(), secret.expose(), token.as_ref().map(SecretValue::expose));
        let names = format!("{AWS_ID} {AWS_SECRET} {AWS_TOKEN}");
        found.extend(FoundCredential::of_template("aws", value, origin(AWS_SECRET), remove(&names)));
    }
    for (name, value) in values {
        if let Some(template) = template_of(&name) {
            found.extend(FoundCredential::of_template(
                &template.name,
                Some(value),
                origin(&name),
                remove(&name),
            ));
        }
    }
    found
}

/// Returns the only template whose programs read this variable and whose hosts are known.
fn template_of(variable: &str) -> Option<&'static Template> {
    let in_body = |template: &Template| template.placement.placeholder_part() == Some(RequestPart::Body);
    let is_of = |template: &&Template| {
        template.env.iter().any(|own| own == variable) && !template.hosts.is_empty() && !in_body(template)
    };
    let mut all = Template::all().iter().filter(is_of);
    all.next().filter(|_| all.next().is_none())
}

impl FoundCredential {
    fn of_template(
        template: &str,
        value: Option<SecretValue>,
        origin: String,
        remove: String,
    ) -> Option<FoundCredential> {
        let options = vec!["--template".to_owned(), template.to_owned()];
        Some(FoundCredential { name: template.parse().ok()?, options, origin, value: value?, remove })
    }
}

/// Returns `ID:SECRET`, or `ID:SECRET:TOKEN`.
fn joined(id: &[u8], secret: &[u8], token: Option<&[u8]>) -> Option<SecretValue> {
    let parts: Vec<&[u8]> = [id, secret].into_iter().chain(token).collect();
    SecretValue::new(parts.join(&b':')).ok()
}

fn of_gh(path: &std::path::Path) -> Result<Vec<FoundCredential>, String> {
    let printed = files::printed(path, &["auth", "token"])?;
    let value = SecretValue::of_document(printed.as_bytes()).map_err(|error| error.to_string())?;
    let remove = "gh auth logout --hostname github.com".to_owned();
    Ok(FoundCredential::of_template("github", Some(value), "gh auth token".to_owned(), remove)
        .into_iter()
        .collect())
}

fn of_netrc(text: &str, path: &str) -> Vec<FoundCredential> {
    let machines = netrc::read(text.trim_start_matches(dotenv::MARK));
    let is_only = machines.len() == 1;
    let found = machines.into_iter().filter_map(|machine| {
        let netrc::Machine { host, login, password } = machine;
        let value = SecretValue::new(password.as_bytes().to_vec()).ok();
        let origin = format!("machine {host} in {path}");
        let remove = if is_only {
            format!("rm {}", quoted(path))
        } else {
            format!("\"${{EDITOR:-vi}}\" {}   # remove the entry of machine {host}", quoted(path))
        };
        let parsed: Host = host.parse().ok()?;
        let matching =
            Template::all().iter().find(|template| template.hosts.iter().any(|own| own.matches(&parsed)));
        if let Some(template) = matching {
            return FoundCredential::of_template(&template.name, value, origin, remove);
        }
        // A login that begins with a dash must not be parsed as an option.
        let basic = if login.starts_with('-') {
            vec![format!("--basic={login}")]
        } else {
            vec!["--basic".to_owned(), login]
        };
        let options = [vec!["--host".to_owned(), host.clone()], basic].concat();
        Some(FoundCredential { name: host.parse().ok()?, options, origin, value: value?, remove })
    });
    found.collect()
}

fn of_aws(text: &str, path: &str) -> Result<Vec<FoundCredential>, String> {
    let mut file = Ini::new_cs();
    file.set_inline_comment_symbols(Some(&[]));
    // The parser's errors quote lines.
    let text = text.trim_start_matches(dotenv::MARK).to_owned();
    let sections = file.read(text).map_err(|_| "it is not a file of profiles".to_owned())?;
    let found = sections.iter().filter_map(|(profile, keys)| {
        let key = |name: &str| keys.get(&name.to_ascii_lowercase())?.as_deref();
        let value = joined(key(AWS_ID)?.as_bytes(), key(AWS_SECRET)?.as_bytes(), key(AWS_TOKEN).map(str::as_bytes));
        let origin = format!("profile {profile} in {path}");
        let remove = format!(
            r"sed -i '/^\[{profile}\]/,/^\[/{{/^[[:space:]]*aws_\(access_key_id\|secret_access_key\|session_token\)[[:space:]]*=/d}}' {}",
            quoted(path)
        );
        let found = FoundCredential::of_template("aws", value, origin, remove)?;
        if profile == DEFAULT {
            return Some(found);
        }
        Some(FoundCredential { name: format!("aws-{}", profile.to_ascii_lowercase()).parse().ok()?, ..found })
    });
    Ok(found.collect())
}

fn quoted(path: &str) -> String {
    shlex::try_quote(path).map_or_else(|_| path.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(found: Vec<FoundCredential>) -> Vec<String> {
        let tell = |one: FoundCredential| {
            let value = String::from_utf8(one.value.expose().to_vec()).unwrap();
            format!("{} {} {value}", one.name, one.options.join(" "))
        };
        found.into_iter().map(tell).collect()
    }

    #[test]
    fn lines_of_templates_are_found() {
        let text = "OPENAI_API_KEY=sk-0123456789\nOTHER=0123456789\nAWS_ACCESS_KEY_ID=AKIA01234567\n\
                    AWS_SECRET_ACCESS_KEY='a/b+c0123456789'\nTAVILY_API_KEY=tvly-0123456789\n";
        let found = of_dotenv(text, "/a b/.env");
        assert!(found.iter().all(|one| one.remove.ends_with("'/a b/.env'")));
        assert_eq!(
            summary(found),
            [
                "aws --template aws AKIA01234567:a/b+c0123456789",
                "openai --template openai sk-0123456789",
                "tavily --template tavily tvly-0123456789"
            ]
        );
    }

    #[test]
    fn profiles_of_aws_are_found() {
        let text = "# mine\n[default]\naws_access_key_id = AKIA01234567\naws_secret_access_key = a#b;c=0123456789\n\
                    region = x\n[Work]\naws_access_key_id=ASIA01234567\naws_secret_access_key=d0123456789\n\
                    aws_session_token=tok/en==\n[empty]\n";
        // In the order of the file.
        assert_eq!(
            summary(of_aws(text, "f").unwrap()),
            [
                "aws --template aws AKIA01234567:a#b;c=0123456789",
                "aws-work --template aws ASIA01234567:d0123456789:tok/en=="
            ]
        );
    }

    #[test]
    fn unusable_lines_of_templates_are_named() {
        let text = "OPENAI_API_KEY='sk-0123456789\nOTHER=1\nGROQ_API_KEY='gsk_0123456789'x\n";
        let named = unusable(text, "f");
        assert_eq!(named.len(), 2, "{named:?}");
        assert!(named[0].starts_with("OPENAI_API_KEY in f: ") && named[1].starts_with("GROQ_API_KEY in f: "));
        assert!(!named.concat().contains("0123456789"));
    }

    /// `sed` removes every line that is parsed as an assignment.
    #[test]
    fn removal_commands_match_what_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let (key, mark) = ("OPENAI_API_KEY=sk-0123456789", dotenv::MARK);
        for line in [format!("\t export\t {key}"), format!("{mark}{key}"), format!("\t{key}")] {
            let text = format!("{line}\nOTHER=1\n");
            std::fs::write(file.path(), &text).unwrap();
            let found = of_dotenv(&text, &path);
            let [one] = found.as_slice() else { panic!("{line:?}: {}", found.len()) };
            let status = std::process::Command::new("sh").args(["-c", &one.remove]).status().unwrap();
            assert!(status.success(), "{}", one.remove);
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "OTHER=1\n", "{}", one.remove);
        }
    }

    #[test]
    fn login_is_not_parsed_as_an_option() {
        let found = of_netrc("machine a.test login --plain-http password 0123456789", "f");
        assert_eq!(summary(found), ["a.test --host a.test --basic=--plain-http 0123456789"]);
    }

    #[test]
    fn netrc_machine_becomes_the_secret_of_its_service() {
        let text = "machine api.github.com login x password ghp_0123456789\n\
                    machine git.acme.test login deploy password 0123456789\nmachine a.test password short";
        assert_eq!(
            summary(of_netrc(text, "f")),
            [
                "github --template github ghp_0123456789",
                "git.acme.test --host git.acme.test --basic deploy 0123456789"
            ]
        );
    }
}
