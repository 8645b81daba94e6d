//! Options of `onecli agent env`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use onecli_api::AgentEnvRequest;
use onecli_model::AgentName;

/// Print the settings with which a container runs as an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The token and the placeholders are written to a file that only you can read (0600), in the same directory as the CA
bundle. The output names those files. With --for shell, the output itself contains the token and the placeholders, for
eval. If the agent requires the cgroup factor, the output includes --cgroup-parent.

Examples:
  docker run --rm $(onecli agent env crawler --for docker) python:3 python -c ...
  onecli agent env crawler --for compose --service web > onecli.yaml && docker compose -f compose.yaml -f onecli.yaml up
  eval \"$(onecli agent env crawler --for shell)\"")]
pub(crate) struct EnvArgs {
    /// The agent.
    pub(crate) name: AgentName,
    /// The kind of output.
    #[arg(long = "for", value_enum, default_value_t = EnvFor::Shell)]
    pub(crate) kind: EnvFor,
    /// The directory for the files. Default: a directory in your runtime directory; for root, in /run.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The address of the proxy to use. Default: a network address for containers, a loopback address for a shell.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) proxy: Option<std::net::SocketAddr>,
    /// The lifetime of the token in hours.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=i64::from(AgentEnvRequest::MAX_HOURS)))]
    pub(crate) hours: u32,
    /// The service in the Compose file.
    #[arg(long, default_value = "agent", value_name = "NAME")]
    pub(crate) service: String,
}

/// The kind of output of `agent env`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EnvFor {
    /// Options of 'docker run' and 'podman run'.
    Docker,
    /// A Compose override file.
    Compose,
    /// Shell commands for eval.
    Shell,
}
