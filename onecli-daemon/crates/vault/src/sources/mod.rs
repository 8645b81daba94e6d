//! Sources of values that are not stored in the daemon's store.

pub mod cache;
pub mod exec;
pub mod file;
pub mod hashicorp;

use std::fmt;
use std::sync::Arc;

use onecli_model::{AgentId, Clock, SecretValue, Source};

use exec::{Commands, ExecError, Executor};
use file::{FileError, Files};
use hashicorp::{BackendError, HashiCorp};

/// The sources that a secret's source may name.
#[derive(Debug)]
pub struct Sources {
    vault: Option<Arc<HashiCorp>>,
    files: Files,
    commands: Commands,
}

/// The reason why a source returned no value. It never contains one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// A failure of the vault server, or of the connection to it.
    #[error(transparent)]
    Vault(#[from] BackendError),
    /// A failure of the file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A failure of the command.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl SourceError {
    /// The message for agents: the failing part, without addresses, paths and texts of other programs.
    pub fn public_message(&self) -> &'static str {
        match self {
            SourceError::Vault(error) => match error {
                BackendError::Unreachable { .. } => "the vault server cannot be reached",
                BackendError::TimedOut { .. } => "the vault server did not answer in time",
                BackendError::Sealed => "the vault server is sealed or in maintenance",
                BackendError::Standby(_) | BackendError::Redirect => "the vault server is a standby",
                BackendError::RateLimited => "the vault server's rate limit is reached",
                BackendError::NotCaughtUp => "the vault server has not caught up with its leader",
                BackendError::Denied { .. } => "the vault server denies the daemon access",
                BackendError::Login { .. }
                | BackendError::Unwrapped { .. }
                | BackendError::WrappedElsewhere { .. } => "the daemon cannot log in to the vault server",
                BackendError::NoSuchPath { .. } | BackendError::NoSuchField { .. } => {
                    "the vault server has no secret at the path"
                }
                BackendError::NotConfigured => "no vault server is configured",
                _ => "the vault server returned no usable value",
            },
            SourceError::File(_) => "its file cannot be used",
            SourceError::Exec(_) => "the command that prints it failed",
        }
    }

    /// The next step for the operator.
    pub fn hint(&self) -> &'static str {
        match self {
            SourceError::Vault(error) if error.is_outage() => {
                "the vault server fails, not OneCLI: try again when it is available ('onecli vault status')"
            }
            SourceError::Vault(_) => {
                "an administrator should check 'onecli vault status', and the path and the policy on the vault server"
            }
            SourceError::File(_) => "an administrator should check the file",
            SourceError::Exec(_) => "an administrator should check the daemon's log, and run the command",
        }
    }
}

/// A fetched value and its origin.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) value: SecretValue,
    pub(super) origin: ValueOrigin,
}

/// The origin of a fetched value: `vault@3`, `vault@3 stale`, `file`, `exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueOrigin {
    backend: &'static str,
    version: Option<u32>,
    stale: bool,
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend)?;
        if let Some(version) = self.version {
            write!(f, "@{version}")?;
        }
        if self.stale { f.write_str(" stale") } else { Ok(()) }
    }
}

impl ValueOrigin {
    pub(super) fn of(backend: &'static str) -> ValueOrigin {
        ValueOrigin { backend, version: None, stale: false }
    }
}

impl Sources {
    /// Creates the sources. `vault` is the vault server, if one is configured; `executor` runs commands.
    pub fn new(vault: Option<Arc<HashiCorp>>, executor: Arc<dyn Executor>, clock: Arc<dyn Clock>) -> Sources {
        Sources { vault, files: Files::default(), commands: Commands::new(executor, clock) }
    }

    /// Sources without a vault server, and with commands that print numbers.
    #[cfg(test)]
    pub(crate) fn for_test() -> Sources {
        let executor = Arc::new(exec::tests::Counting::default());
        Sources::new(None, executor, Arc::new(onecli_sys::SystemClock))
    }

    fn vault(&self) -> Result<&Arc<HashiCorp>, BackendError> {
        self.vault.as_ref().ok_or(BackendError::NotConfigured)
    }

    /// The value, for `agent`.
    pub(super) async fn fetch(&self, agent: AgentId, source: &Source) -> Result<Fetched, SourceError> {
        let (value, origin) = match source {
            Source::Vault(reference) => {
                let material = self.vault()?.fetch(agent, reference).await?;
                let (version, stale) = (material.version, material.stale);
                (material.value, ValueOrigin { version, stale, ..ValueOrigin::of("vault") })
            }
            Source::File(file) => (self.files.read(file).await?, ValueOrigin::of("file")),
            Source::Exec(command) => (self.commands.fetch(command).await?, ValueOrigin::of("exec")),
        };
        Ok(Fetched { value, origin })
    }

    /// The value that responses are searched for; `None` if `agent` has none yet.
    pub(super) async fn watch(
        &self,
        agent: AgentId,
        source: &Source,
    ) -> Result<Option<SecretValue>, SourceError> {
        match source {
            Source::Vault(reference) => Ok(self.vault()?.watch(agent, reference).await?),
            Source::File(_) | Source::Exec(_) => Ok(Some(self.fetch(agent, source).await?.value)),
        }
    }

    /// The values of a source that are in memory for these agents. Nothing is fetched or waited for.
    pub(super) fn in_memory(&self, agents: &[AgentId], source: &Source) -> Vec<SecretValue> {
        match source {
            Source::Vault(reference) => {
                self.vault.as_ref().map(|vault| vault.in_memory(agents, reference)).unwrap_or_default()
            }
            Source::Exec(command) => self.commands.in_memory(command).into_iter().collect(),
            // Files are read at each use.
            Source::File(_) => Vec::new(),
        }
    }

    /// Expires a value that an upstream refused.
    pub(super) async fn evict(&self, agent: AgentId, source: &Source) {
        match source {
            Source::Vault(reference) => {
                if let Some(vault) = &self.vault {
                    vault.evict(agent, reference).await;
                }
            }
            Source::Exec(command) => self.commands.expire(command).await,
            // Files are read at each use.
            Source::File(_) => {}
        }
    }

    /// Forgets expired values, so that they do not stay in memory.
    pub(super) fn tidy(&self) {
        self.commands.tidy();
    }
}
