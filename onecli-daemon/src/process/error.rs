//! The errors that end the daemon or prevent its start.

use onecli_audit::AuditError;
use onecli_model::{RandomError, error_chain};
use onecli_net::ListenError;
use onecli_store::StoreError;
use onecli_sys::PrivateDirError;
use onecli_sys::kernel::KernelError;
use onecli_sys::lock::LockError;
use onecli_sys::privilege::PrivilegeError;
use onecli_tls::{CaError, UpstreamTlsError};
use onecli_vault::VaultError;
use onecli_vault::sources::hashicorp::BackendError;

use super::task_group::TaskEnded;

/// The reason why the daemon does not run. Each message includes the next step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// Other users have access to the data directory.
    #[error(transparent)]
    DataDir(#[from] PrivateDirError),
    /// Another daemon uses the data directory.
    #[error(
        "the data directory {path} is in use: {source}; stop that daemon, or start this one with another --data-dir"
    )]
    DataInUse {
        /// The directory.
        path: String,
        /// The lock's error, which names its holder.
        source: LockError,
    },
    /// The data directory cannot be opened or locked.
    #[error(
        "cannot lock the data directory {path}: {source}; check that it exists and that its file system has locks"
    )]
    DataLock {
        /// The directory.
        path: String,
        /// The error of open(2) or flock(2).
        source: LockError,
    },
    /// The process could not drop its privileges.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The threads of the runtime cannot be created.
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    /// The database failed.
    #[error("{}", error_chain(.0))]
    Store(#[from] StoreError),
    /// The root key, or a value sealed with it, cannot be used.
    #[error("{}", error_chain(.0))]
    Vault(#[from] VaultError),
    /// The configuration in `[backend.vault]` cannot be used.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The audit log failed.
    #[error("{}", error_chain(.0))]
    Audit(#[from] AuditError),
    /// The stored key of the audit log is invalid.
    #[error(
        "the audit log's key in the store is damaged; delete the row 'audit.key' of table 'meta': the next start generates a new key"
    )]
    AuditKey,
    /// No random bytes are available.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The certificate authority failed.
    #[error("{}", error_chain(.0))]
    Ca(#[from] CaError),
    /// The sealed key of the certificate authority cannot be opened.
    #[error("cannot open the stored CA key: {0}; restore a backup")]
    CaKey(String),
    /// A step of the CA rotation is not possible now.
    #[error("{0}")]
    CaRotation(String),
    /// The roots for verifying upstreams cannot be used.
    #[error(transparent)]
    UpstreamTls(#[from] UpstreamTlsError),
    /// The backup cannot be restored.
    #[error("{0}")]
    Restore(String),
    /// A port cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel programs cannot register the daemon's listeners.
    #[error("{}", error_chain(.0))]
    Kernel(#[from] KernelError),
    /// The helper process is lost, and this process cannot start it again.
    #[error("{0}; the process exits so that the service manager restarts it")]
    Helper(String),
    /// The process that runs commands cannot start.
    #[error("the executor cannot start: {0}")]
    Executor(String),
    /// The agents root is gone, and the programs with it. This process has no right to attach them again.
    #[error("{0}; the process exits, and a restart creates the cgroup and attaches the programs")]
    AgentsRoot(String),
    /// The admin socket failed.
    #[error("{}", error_chain(.0))]
    Admin(#[from] onecli_admin::SocketError),
    /// The CA bundle for agents cannot be written.
    #[error("cannot write the CA bundle {path}: {source}")]
    Bundle {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The password of the upstream proxy cannot be read.
    #[error("cannot read the proxy's password from {path}: {reason}")]
    ProxyPassword {
        /// The file.
        path: String,
        /// The cause.
        reason: String,
    },
    /// A task of the daemon ended. The process exits, because a part of the daemon no longer works.
    #[error("{0}; the process exits so that the service manager restarts it: report it with the log")]
    Task(#[from] TaskEnded),
    /// One of the daemon's sockets failed.
    #[error("a listener failed: {0}")]
    Socket(std::io::Error),
}

impl AppError {
    /// Returns 78 (`EX_CONFIG` of sysexits.h) if a restart cannot help, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            AppError::Vault(error) if error.is_key_problem() => 78,
            AppError::Ca(CaError::Load(_) | CaError::Changed(_))
            | AppError::CaKey(_)
            | AppError::DataDir(_)
            | AppError::UpstreamTls(_)
            | AppError::Backend(_)
            | AppError::ProxyPassword { .. } => 78,
            _ => 1,
        }
    }
}
