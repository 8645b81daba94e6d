//! What `onecli setup` takes.

use clap::{Args as ClapArgs, ValueEnum};
use onecli_model::recipe::RecipeName;
use onecli_model::{AgentName, TemplateChoice};

/// From an installed package to a first agent with a first credential.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Run it as yourself. It prints each command that changes something before it runs it, and uses sudo for those that need root. Steps
that are done already are skipped, so it can be run again after a failure.

It looks for credentials that you have: variables of templates, 'gh auth token', ~/.netrc, ./.env and ~/.aws/credentials. It names
each before it reads it, and reads it as you. Values go to the daemon through a pipe. It prints the commands that remove the
originals, and runs none of them.

A secret that exists already is not replaced, and not granted without a question: its value may be another. With --yes it is
not granted. A credential that fails is left out, the others go on, and the exit code is 1.

Examples:
  onecli setup
  onecli setup --agent coder --recipe claude-code --import env --yes
  pass show openai | onecli setup --agent coder --template openai --yes")]
pub(crate) struct SetupArgs {
    /// The agent: an existing one, or a new one with a user of its own.
    #[arg(long)]
    pub(super) agent: Option<AgentName>,
    /// The program that the agent runs: its rules are added. 'onecli recipe list' shows all.
    #[arg(long)]
    pub(super) recipe: Option<RecipeName>,
    /// The hosts of your package registry, for recipes that need them; may be given again.
    #[arg(long = "host", requires = "recipe")]
    pub(super) hosts: Vec<String>,
    /// Where to look for credentials; may be given again. Default: everywhere on a terminal, nowhere with --yes.
    #[arg(long = "import", value_enum, value_name = "SOURCE")]
    pub(super) imports: Vec<Kind>,
    /// Store a credential for this template. It is read from standard input, or a prompt.
    #[arg(long, value_name = "NAME[:PROFILE]")]
    pub(super) template: Option<TemplateChoice>,
    /// Run every step without a question, and store everything that --import finds.
    #[arg(long)]
    pub(super) yes: bool,
}

/// A place where people keep credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Variables of templates in the environment.
    Env,
    /// What 'gh auth token' prints.
    Gh,
    /// ~/.netrc, or the file that NETRC names.
    Netrc,
    /// The file .env of the current directory.
    Dotenv,
    /// ~/.aws/credentials, or the file that `AWS_SHARED_CREDENTIALS_FILE` names.
    Aws,
}

impl Kind {
    /// Why there is nothing to read.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Kind::Env => "no variable of a template is set",
            Kind::Gh => "there is no program 'gh' on your PATH that may be run",
            Kind::Netrc => "there is no file ~/.netrc, and NETRC names none",
            Kind::Dotenv => "there is no file .env in this directory",
            Kind::Aws => "there is no file ~/.aws/credentials, and AWS_SHARED_CREDENTIALS_FILE names none",
        }
    }
}
