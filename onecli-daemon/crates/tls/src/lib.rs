//! Both TLS sides: the daemon's certificate authority and its leaves towards agents, and verification towards
//! upstreams.
//!
//! The only module that names rustls and rcgen.

#![forbid(unsafe_code)]

mod agent_stream;
mod anchor;
mod authority;
mod client;
mod failure;
mod hello;
mod ocsp;
mod server;
mod service;
mod sessions;
mod verify;

pub use agent_stream::ServerStream;
pub use authority::{CaError, CaMaterial, CertAuthority, CertificateFacts};
pub use client::{Alpn, LateAlert, UpstreamTls, UpstreamTlsError, VerifiedStream};
pub use hello::{ClientHello, TlsAlert, parse_client_hello};
pub use server::AgentTls;
pub use service::{ServiceStream, ServiceTls};

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The limit on TLS records of one connection that wait to be written, in bytes. Two full records, so that one can be
/// created while the other is written.
const SEND_BUFFER: usize = 32 << 10;

/// The one cryptography provider: aws-lc-rs.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

#[cfg(test)]
mod tests;
