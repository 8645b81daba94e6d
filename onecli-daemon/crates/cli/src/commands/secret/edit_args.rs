//! `onecli secret edit`: the options of a change.

use clap::{ArgGroup, Args as ClapArgs};
use onecli_api::{EnvNames, SecretEdit};
use onecli_model::{HostPattern, MethodSet, PathPattern, SecretName};

use super::add_args::{parse_host_and_port, parse_method};
use super::placement_args::{GROUP, PlacementArgs, words};
use crate::input::value_args::ValueArgs;

/// The options that change a property. At least one is required.
fn change() -> ArgGroup {
    let targets = ["hosts", "paths", "methods", "all_methods"];
    let all = targets.into_iter().chain(words()).chain(["env", "no_env", "allow_plaintext"]);
    ArgGroup::new("change").required(true).multiple(true).args(all)
}

/// Change a secret's destinations, placement and environment variables.
#[derive(Debug, ClapArgs)]
#[command(
    group = ArgGroup::new(GROUP),
    group = change(),
    after_help = "\
Properties that are not named stay unchanged. The change applies from the next request; open streams with the secret end.

A change that only narrows the scope keeps the value: fewer paths or methods, other variables. Any other change requires
the value again, except from root: more paths or methods, and any change of host, port, placement or plain-text flag. A
path is narrower only in evident cases: '/v1/models' within '/v1/**', '/a/b' within '/a/*'. On a terminal the command
asks for the value. A script passes it with --value-stdin or --value-file; a pipe is not read otherwise.

A change of host or placement erases a value that is retained for 'onecli secret rollback'. The command asks for
confirmation first; a script needs --force.

Examples:
  onecli secret edit openai --path '/v1/chat/completions' --method POST
  onecli secret edit github --env GITHUB_TOKEN,GH_TOKEN
  onecli secret edit crm --host api.crm.example:8443 --value-file token.txt"
)]
pub(crate) struct SecretEditArgs {
    /// The secret.
    pub(crate) name: SecretName,
    /// A host; replaces all current hosts, may be given again, with the same port. The port stays unless this option or
    /// a URL names one.
    #[arg(long = "host", value_name = "HOST[:PORT]", value_parser = parse_host_and_port)]
    hosts: Vec<(HostPattern, Option<u16>)>,
    /// A path pattern; replaces all current ones, may be given again. '/**' matches all paths.
    #[arg(long = "path", value_name = "PATTERN")]
    paths: Vec<PathPattern>,
    /// A method; replaces all current ones, may be given again.
    #[arg(long = "method", value_name = "METHOD", value_parser = parse_method)]
    methods: Vec<String>,
    /// Allow all methods.
    #[arg(long, conflicts_with = "methods")]
    all_methods: bool,
    #[command(flatten)]
    placement: PlacementArgs<true>,
    /// The environment variables, separated by commas; replaces all current ones.
    #[arg(long, value_name = "VAR,...")]
    env: Option<EnvNames>,
    /// Remove all environment variables.
    #[arg(long, conflicts_with = "env")]
    no_env: bool,
    /// Whether plain HTTP is allowed, which is readable by everyone on the network path.
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    allow_plaintext: Option<String>,
    /// Change the secret only if it is at this version. Default: the version at the start of the command.
    #[arg(long, value_name = "VERSION")]
    pub(super) if_version: Option<u32>,
    #[command(flatten)]
    pub(crate) value: ValueArgs,
}

impl SecretEditArgs {
    /// Returns the change to this version, without a value.
    ///
    /// # Errors
    /// A sentence about conflicting options.
    pub(crate) fn change(&self, version: u32) -> Result<SecretEdit, String> {
        let port = self.hosts.first().map(|(_, port)| *port);
        if self.hosts.iter().any(|(_, other)| Some(*other) != port) {
            return Err(
                "a secret has one port: name it with each host, and store another secret for another port"
                    .to_owned(),
            );
        }
        let methods = MethodSet::try_from(self.methods.clone()).map_err(|error| error.to_string())?;
        Ok(SecretEdit {
            version,
            host: port.map(|_| self.hosts.iter().map(|(host, _)| host.clone()).collect()),
            port: port.flatten(),
            methods: (self.all_methods || !self.methods.is_empty()).then_some(methods),
            paths: (!self.paths.is_empty()).then(|| self.paths.clone()),
            placement: self.placement.selected().cloned(),
            env: self.env.clone(),
            no_env: self.no_env,
            allow_plaintext: self.allow_plaintext.as_ref().map(|answer| answer == "yes"),
            value: None,
            force: self.value.force,
            erase_kept: self.value.force,
        })
    }
}
