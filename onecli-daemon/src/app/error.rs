//! Why the daemon does not run.

use onecli_audit::AuditError;
use onecli_model::{RandomError, error_chain};
use onecli_net::ListenError;
use onecli_store::StoreError;
use onecli_sys::PrivateDirError;
use onecli_sys::kernel::KernelError;
use onecli_sys::privilege::PrivilegeError;
use onecli_sys::sole::SoleError;
use onecli_tls::{CaError, UpstreamTlsError};
use onecli_vault::VaultError;
use onecli_vault::backends::hashicorp::BackendError;

/// Why the daemon does not run. Each case says what to do in its own words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// The data directory is not ours alone.
    #[error(transparent)]
    DataDir(#[from] PrivateDirError),
    /// Another daemon has the data directory.
    #[error(
        "the data directory {path} is in use: {source}; stop it first, or give this one another --data-dir"
    )]
    DataInUse {
        /// The directory.
        path: String,
        /// Who has it.
        source: SoleError,
    },
    /// Privileges could not be given up.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// No threads.
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    /// The database.
    #[error("{}", error_chain(.0))]
    Store(#[from] StoreError),
    /// The root key, or what it opens.
    #[error("{}", error_chain(.0))]
    Vault(#[from] VaultError),
    /// `[backend.vault]`.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The audit log.
    #[error("{}", error_chain(.0))]
    Audit(#[from] AuditError),
    /// The audit log's key in the store is not one.
    #[error(
        "the audit log's key in the store is damaged; remove the row 'audit.key' of table 'meta' to have one made"
    )]
    AuditKey,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The certificate authority.
    #[error("{}", error_chain(.0))]
    Ca(#[from] CaError),
    /// What is sealed of it does not open.
    #[error("the stored CA key does not open: {0}; restore a backup")]
    CaKey(String),
    /// A step of its rotation that cannot be made now.
    #[error("{0}")]
    CaRotation(String),
    /// Roots to verify upstreams with.
    #[error(transparent)]
    UpstreamTls(#[from] UpstreamTlsError),
    /// A backup that cannot be restored.
    #[error("{0}")]
    Restore(String),
    /// A port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel programs do not know our listeners.
    #[error("{}", error_chain(.0))]
    Kernel(#[from] KernelError),
    /// The helper process, which this one cannot start again.
    #[error("{0}: the daemon ends, to be started again")]
    Helper(String),
    /// The process that runs commands cannot start.
    #[error("the executor cannot start: {0}")]
    Executor(String),
    /// The agents root is gone, and the programs with it; this process has no right to attach them again.
    #[error("{0}; the daemon ends, to be started again: that makes and enforces it")]
    AgentsRoot(String),
    /// The admin socket.
    #[error("{}", error_chain(.0))]
    Admin(#[from] onecli_admin::SocketError),
    /// The bundle for agents.
    #[error("cannot write the CA bundle {path}: {source}")]
    Bundle {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The password for the upstream proxy.
    #[error("cannot read the proxy's password from {path}: {reason}")]
    ProxyPassword {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A socket of ours failed.
    #[error("a listener failed: {0}")]
    Socket(std::io::Error),
}

impl AppError {
    /// 78 (`EX_CONFIG` of sysexits.h) where a restart cannot help, else 1.
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
