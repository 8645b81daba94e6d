//! Options of `onecli agent env`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use onecli_api::AgentEnvRequest;
use onecli_model::AgentName;

/// What a container needs to be an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The token and the placeholders go into a file that only you can read (0600), beside the CA's bundle; what is printed names
those files. With --for shell they are printed, for eval. An agent that requires its cgroup is given it by the printed
--cgroup-parent, besides the token.

Examples:
  docker run --rm $(onecli agent env crawler --for docker) python:3 python -c ...
  onecli agent env crawler --for compose --service web > onecli.yaml && docker compose -f compose.yaml -f onecli.yaml up
  eval \"$(onecli agent env crawler --for shell)\"")]
pub(super) struct EnvArgs {
    /// The agent.
    pub(super) name: AgentName,
    /// Whom it is for.
    #[arg(long = "for", value_enum, default_value_t = EnvFor::Shell)]
    pub(super) kind: EnvFor,
    /// The directory for the files; by default one in your runtime directory, for root in /run.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Which of the proxy's addresses; by default one on the network for containers, on loopback for a shell.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) proxy: Option<std::net::SocketAddr>,
    /// How long the token is good for.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=i64::from(AgentEnvRequest::MAX_HOURS)))]
    pub(super) hours: u32,
    /// The service in the Compose file.
    #[arg(long, default_value = "agent", value_name = "NAME")]
    pub(super) service: String,
}

/// Who reads what `agent env` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum EnvFor {
    /// Options of 'docker run' and 'podman run'.
    Docker,
    /// A Compose file to lay over another.
    Compose,
    /// Lines for a shell's eval.
    Shell,
}
