//! The choice of a template, or of a narrow profile of one.

use std::fmt;
use std::str::FromStr;

use super::name::{TemplateName, TemplateNameError};
use super::narrow::NarrowProfile;

/// A template, or a narrow profile of one: `github`, `github:read-repos`.
#[derive(Debug, Clone, Copy)]
pub struct TemplateChoice {
    /// The template.
    pub template: TemplateName,
    /// The profile of the template.
    pub narrow: Option<&'static NarrowProfile>,
}

/// No template, or no profile of it, has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateChoiceError {
    /// There is no such template.
    #[error(transparent)]
    Template(#[from] TemplateNameError),
    /// There is no such profile.
    #[error("the template '{template}' has no profile of that name: it has {known}")]
    Profile {
        /// The template.
        template: TemplateName,
        /// Its profiles.
        known: String,
    },
}

impl FromStr for TemplateChoice {
    type Err = TemplateChoiceError;

    fn from_str(text: &str) -> Result<TemplateChoice, TemplateChoiceError> {
        let Some((name, profile)) = text.split_once(':') else {
            return Ok(TemplateChoice { template: text.parse()?, narrow: None });
        };
        let template: TemplateName = name.parse()?;
        let profiles = &template.template().profiles;
        if let Some(narrow) = profiles.iter().find(|own| own.name == profile) {
            return Ok(TemplateChoice { template, narrow: Some(narrow) });
        }
        let names: Vec<&str> = profiles.iter().map(|own| own.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(TemplateChoiceError::Profile { template, known })
    }
}

impl fmt::Display for TemplateChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.narrow {
            Some(narrow) => write!(f, "{}:{}", self.template, narrow.name),
            None => self.template.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::CanonicalPath;
    use crate::PathPattern;
    use crate::PathReadings;
    use crate::template::Template;

    #[test]
    fn choices_are_parsed() {
        let narrow: TemplateChoice = "github:read-repos".parse().unwrap();
        assert_eq!(narrow.to_string(), "github:read-repos");
        assert!("github".parse::<TemplateChoice>().unwrap().narrow.is_none());
        for (bad, message) in
            [("no-such", "no template"), ("github:x", "it has"), ("tavily:x", "it has none")]
        {
            let error = bad.parse::<TemplateChoice>().unwrap_err().to_string();
            assert!(error.contains(message), "{bad}: {error}");
        }
    }

    /// Requests as a client of the service makes them, and requests that go further.
    #[test]
    fn profiles_allow_only_their_purpose() {
        let check = |choice: &str, method: Method, path: &str, expected: bool| {
            let narrow = choice.parse::<TemplateChoice>().unwrap().narrow.unwrap();
            let encoded = choice.parse::<TemplateChoice>().unwrap().template.template().encoded_slash;
            let path = CanonicalPath::parse(path).unwrap();
            let path = PathReadings::new(&path);
            let matches =
                |own: &PathPattern| if encoded { own.matches_opaque(&path) } else { own.matches(&path) };
            let got = narrow.methods.contains(&method) && narrow.paths.iter().any(matches);
            assert_eq!(got, expected, "{choice} {method} {path}");
        };
        for (choice, method, path) in [
            ("anthropic:messages", Method::POST, "/v1/messages"),
            ("aws:s3-read", Method::GET, "/folder/key"),
            ("github-git:clone", Method::GET, "/a/b.git/info/refs"),
            ("github-git:clone", Method::POST, "/a/b.git/git-upload-pack"),
            ("github:read-repos", Method::GET, "/repos/a/b/contents/src/main.rs"),
            ("github:read-repos", Method::GET, "/repos/a/b"),
            ("github:issues", Method::POST, "/repos/a/b/issues"),
            ("gitlab:read-repos", Method::GET, "/api/v4/projects/a%2Fb/repository/files/x%2Fy/raw"),
            ("npm:read", Method::GET, "/@scope%2Fname"),
            ("openai:chat", Method::POST, "/v1/chat/completions"),
            ("slack:post", Method::POST, "/api/chat.postMessage"),
            ("stripe:read", Method::GET, "/v1/charges/ch_1"),
        ] {
            check(choice, method, path, true);
        }
        for (choice, method, path) in [
            ("anthropic:messages", Method::GET, "/v1/messages"),
            ("anthropic:messages", Method::POST, "/v1/files"),
            ("aws:s3-read", Method::PUT, "/folder/key"),
            ("github-git:clone", Method::POST, "/a/b.git/git-receive-pack"),
            ("github:read-repos", Method::POST, "/repos/a/b/issues"),
            ("github:read-repos", Method::GET, "/repos/a/b/actions/secrets"),
            ("github:read-repos", Method::GET, "/user"),
            ("github:issues", Method::DELETE, "/repos/a/b/issues/1"),
            ("gitlab:read-repos", Method::GET, "/api/v4/projects/a%2Fb/variables"),
            ("npm:read", Method::PUT, "/name"),
            ("npm:read", Method::GET, "/-/npm/v1/tokens"),
            ("openai:chat", Method::POST, "/v1/files"),
            ("slack:post", Method::POST, "/api/conversations.history"),
            ("stripe:read", Method::POST, "/v1/charges"),
        ] {
            check(choice, method, path, false);
        }
    }

    #[test]
    fn template_file_names_each_profile_once() {
        for template in Template::all() {
            let mut names: Vec<&str> = template.profiles.iter().map(|own| own.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), template.profiles.len(), "{}", template.name);
            for own in &template.profiles {
                assert!(!own.methods.is_all() && !own.paths.is_empty(), "{}:{}", template.name, own.name);
                assert!(!own.wants_host || own.hosts.is_empty(), "{}:{}", template.name, own.name);
            }
        }
    }
}
