//! The name of a template, which secrets store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Template;

/// The name of a template of this program.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TemplateName(&'static Template);

/// No template has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no template '{0}': 'onecli template list' shows all")]
pub struct TemplateNameError(String);

impl TemplateName {
    /// Returns the template.
    pub fn template(&self) -> &'static Template {
        self.0
    }
}

impl FromStr for TemplateName {
    type Err = TemplateNameError;

    fn from_str(text: &str) -> Result<TemplateName, TemplateNameError> {
        let short = || text.chars().take(80).flat_map(char::escape_default).collect();
        Template::find(text).map(TemplateName).ok_or_else(|| TemplateNameError(short()))
    }
}

impl PartialEq for TemplateName {
    fn eq(&self, other: &TemplateName) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for TemplateName {}

impl fmt::Debug for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateName({})", self.0.name)
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.name)
    }
}

impl TryFrom<String> for TemplateName {
    type Error = TemplateNameError;

    fn try_from(text: String) -> Result<TemplateName, TemplateNameError> {
        text.parse()
    }
}

impl From<TemplateName> for String {
    fn from(name: TemplateName) -> String {
        name.0.name.clone()
    }
}
