//! Recipes for common agent programs, as data: `recipes.toml` is part of the program.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::name::TemplateName;
use crate::rule::{Action, RuleText};

static ALL: LazyLock<Vec<Recipe>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a test reads the file that this program is built with")]
    parse(include_str!("../../recipes.toml")).expect("recipes.toml is checked by a test")
});

/// The settings that a program needs to work as an agent, besides its credentials.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Its name: a-z, 0-9, `-`.
    pub name: String,
    /// The title of the program.
    pub title: String,
    /// Its command. The default is the recipe's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Templates of the credentials that the program can use. An agent needs one of them.
    #[serde(default)]
    pub templates: Vec<TemplateName>,
    /// Requests that it makes without a credential.
    #[serde(default)]
    pub rules: Vec<RecipeRule>,
    /// Its environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Directories in the caller's home where the program is usually installed. They are shared read-only if they
    /// exist. They begin with `~/`.
    #[serde(default)]
    pub share: Vec<String>,
}

/// Requests that a program makes without a credential.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeRule {
    /// The host. `None` if each site has its own; the administrator then names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Methods; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Path patterns; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The program's use of the responses.
    pub reason: String,
}

impl RecipeRule {
    /// Returns the rule for this host.
    fn text(&self, host: &str) -> RuleText {
        RuleText {
            action: Action::Allow,
            host: Some(host.to_owned()),
            port: None,
            methods: self.methods.clone(),
            paths: self.paths.clone(),
            address: None,
            rate: None,
            tunnel: false,
        }
    }
}

#[derive(Deserialize)]
struct File {
    recipe: Vec<Recipe>,
}

fn parse(text: &str) -> Result<Vec<Recipe>, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.recipe)
}

impl Recipe {
    /// Returns every recipe, ordered by name.
    pub fn all() -> &'static [Recipe] {
        &ALL
    }

    /// Returns the command that starts the program.
    pub fn program(&self) -> &str {
        self.command.as_ref().unwrap_or(&self.name)
    }

    /// Returns whether the administrator must name hosts.
    pub fn needs_hosts(&self) -> bool {
        self.rules.iter().any(|rule| rule.host.is_none())
    }

    /// Returns its rules with their reasons. A rule without a host is repeated for each of `hosts`.
    pub fn rules(&self, hosts: &[String]) -> Vec<(RuleText, &str)> {
        let for_rule = |rule: &RecipeRule| match &rule.host {
            Some(host) => vec![host.clone()],
            None => hosts.to_vec(),
        };
        let texts =
            |rule| for_rule(rule).into_iter().map(move |host| (rule.text(&host), rule.reason.as_str()));
        self.rules.iter().flat_map(texts).collect()
    }
}

/// The name of a recipe of this program.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecipeName(&'static Recipe);

/// No recipe has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no recipe '{0}': 'onecli recipe list' shows all")]
pub struct RecipeNameError(String);

impl RecipeName {
    /// Returns the recipe.
    pub fn recipe(&self) -> &'static Recipe {
        self.0
    }
}

impl FromStr for RecipeName {
    type Err = RecipeNameError;

    fn from_str(text: &str) -> Result<RecipeName, RecipeNameError> {
        let short = || text.chars().take(80).flat_map(char::escape_default).collect();
        let found = ALL.iter().find(|recipe| recipe.name == text);
        found.map(RecipeName).ok_or_else(|| RecipeNameError(short()))
    }
}

impl fmt::Debug for RecipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipeName({})", self.0.name)
    }
}

impl fmt::Display for RecipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.name)
    }
}

impl TryFrom<String> for RecipeName {
    type Error = RecipeNameError;

    fn try_from(text: String) -> Result<RecipeName, RecipeNameError> {
        text.parse()
    }
}

impl From<RecipeName> for String {
    fn from(name: RecipeName) -> String {
        name.0.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RuleSpec;

    #[test]
    fn all_are_valid() {
        let all = parse(include_str!("../../recipes.toml")).unwrap();
        for recipe in &all {
            for (rule, reason) in recipe.rules(&["packages.test".to_owned()]) {
                let terms = RuleSpec::try_from(rule.clone());
                assert!(terms.is_ok_and(|terms| !terms.is_tunnel()), "{}: {rule:?}", recipe.name);
                assert!(!reason.is_empty(), "{}: {rule:?}", recipe.name);
            }
            assert!(recipe.share.iter().all(|dir| dir.starts_with("~/")), "{}", recipe.name);
            let is_name = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            assert!(recipe.env.keys().all(is_name), "{}", recipe.name);
        }
        assert!(all.is_sorted_by(|one, next| one.name < next.name), "not in the order of their names");
    }

    #[test]
    fn rules_without_a_host_apply_to_given_hosts() {
        let npm: RecipeName = "npm".parse().unwrap();
        assert!(npm.recipe().needs_hosts() && npm.recipe().rules(&[]).is_empty());
        let hosts = ["one.test".to_owned(), "two.test".to_owned()];
        let rules = npm.recipe().rules(&hosts);
        let named: Vec<_> = rules.iter().filter_map(|(rule, _)| rule.host.clone()).collect();
        assert_eq!(named.len(), rules.len());
        assert!(hosts.iter().all(|host| named.contains(host)));
    }

    #[test]
    fn unknown_name_is_refused() {
        assert!("claude".parse::<RecipeName>().is_err());
    }
}
