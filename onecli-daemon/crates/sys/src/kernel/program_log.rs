//! The log of the kernel programs.
#![allow(unsafe_code, reason = "the descriptor of the ring buffer is registered")]

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;

/// Reader of the programs' log (aya-log), which is passed to the `log` facade.
pub struct KernelLog {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl KernelLog {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let logger =
            EbpfLogger::init(ebpf).map_err(|source| KernelError::Log { source: Box::new(source) })?;
        Ok(Self { logger })
    }

    /// Passes on the entries since the last call.
    pub fn flush(&mut self) {
        self.logger.flush();
    }

    /// Passes on entries as they arrive. Call it inside a tokio runtime.
    pub async fn forward(self) -> Result<(), KernelError> {
        // SAFETY: the logger owns one descriptor, always returns the same one, and closes it when it is dropped, which
        // `AsyncFd` does after deregistering.
        let mut logger =
            unsafe { AsyncFd::register(self.logger) }.map_err(|error| KernelError::Events(error.into()))?;
        loop {
            let mut ready = logger.readable_mut().await.map_err(KernelError::Events)?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}
