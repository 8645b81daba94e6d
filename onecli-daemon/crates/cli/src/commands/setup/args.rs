//! The command line of `onecli setup`.

use clap::{Args as ClapArgs, ValueEnum};
use onecli_model::recipe::RecipeName;
use onecli_model::{AgentName, TemplateChoice};

/// Set up a first agent with a first credential.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Run it as yourself. It prints each command that changes something before it runs it, and uses sudo for commands that need
root. It skips completed steps, so you can run it again after a failure.

It searches for your existing credentials: variables of templates, 'gh auth token', ~/.netrc, ./.env and
~/.aws/credentials. It names each source before it reads it, and reads it with your rights. It passes values to the daemon
through a pipe. It prints the commands that remove the originals, and runs none of them.

It does not replace an existing secret, and asks before it grants one, because its value may differ. With --yes it does not
grant one. If a credential cannot be stored, it is left out, the others continue, and the exit code is 1.

Examples:
  onecli setup
  onecli setup --agent coder --recipe claude-code --import env --yes
  pass show openai | onecli setup --agent coder --template openai --yes")]
pub(crate) struct SetupArgs {
    /// The agent: an existing one, or a new one with a dedicated user.
    #[arg(long)]
    pub(super) agent: Option<AgentName>,
    /// The program that the agent runs, to add its rules. 'onecli recipe list' shows all recipes.
    #[arg(long)]
    pub(super) recipe: Option<RecipeName>,
    /// A host of your package registry, for recipes that need it; may be given again.
    #[arg(long = "host", requires = "recipe")]
    pub(super) hosts: Vec<String>,
    /// A source of existing credentials; may be given again. Default: all on a terminal, none with --yes.
    #[arg(long = "import", value_enum, value_name = "SOURCE")]
    pub(super) imports: Vec<SourceKind>,
    /// Store a credential for this template, read from standard input or a prompt.
    #[arg(long, value_name = "NAME[:PROFILE]")]
    pub(super) template: Option<TemplateChoice>,
    /// Run every step without confirmation, and store every credential that --import finds.
    #[arg(long)]
    pub(super) yes: bool,
}

/// A source of existing credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceKind {
    /// Environment variables of templates.
    Env,
    /// The output of 'gh auth token'.
    Gh,
    /// ~/.netrc, or the file that NETRC names.
    Netrc,
    /// The file .env of the current directory.
    Dotenv,
    /// ~/.aws/credentials, or the file that `AWS_SHARED_CREDENTIALS_FILE` names.
    Aws,
}

impl SourceKind {
    /// Returns the reason why there is nothing to read.
    pub(super) fn missing(self) -> &'static str {
        match self {
            SourceKind::Env => "no variable of a template is set",
            SourceKind::Gh => "there is no program 'gh' on your PATH that may be run",
            SourceKind::Netrc => "there is no file ~/.netrc, and NETRC names none",
            SourceKind::Dotenv => "there is no file .env in this directory",
            SourceKind::Aws => {
                "there is no file ~/.aws/credentials, and AWS_SHARED_CREDENTIALS_FILE names none"
            }
        }
    }
}
