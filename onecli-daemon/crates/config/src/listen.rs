//! `[listen]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use onecli_model::Host;
use serde::Deserialize;

use super::parse::{absolute, addresses, host_names, networks, port};

/// `[listen]`: the daemon's sockets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Addresses of the explicit proxy; an empty list turns it off. Default `127.0.0.1:10255`.
    #[serde(deserialize_with = "addresses")]
    pub explicit: Vec<SocketAddr>,
    /// Addresses of the explicit proxy over TLS. Default none.
    #[serde(deserialize_with = "addresses")]
    pub explicit_tls: Vec<SocketAddr>,
    /// Names in the TLS proxy's certificate, in addition to those addresses. Default none.
    #[serde(deserialize_with = "host_names")]
    pub explicit_tls_names: Vec<Host>,
    /// Networks of the clients that the explicit proxy serves, in addition to loopback; empty for every client. Default
    /// none.
    #[serde(deserialize_with = "networks")]
    pub allow_sources: Vec<IpNet>,
    /// The loopback port of redirected connections, 1 to 65535. Default 10256.
    #[serde(deserialize_with = "port")]
    pub transparent_port: u16,
    /// The path of the admin socket. Default `/run/onecli/admin.sock`.
    #[serde(deserialize_with = "absolute")]
    pub admin_socket: PathBuf,
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            explicit: vec![SocketAddr::from(([127, 0, 0, 1], 10255))],
            explicit_tls: Vec::new(),
            explicit_tls_names: Vec::new(),
            allow_sources: Vec::new(),
            transparent_port: 10256,
            admin_socket: PathBuf::from("/run/onecli/admin.sock"),
        }
    }
}

impl Listen {
    /// Returns the names in the certificate of the TLS proxy; empty if it does not listen.
    pub fn proxy_names(&self) -> Vec<Host> {
        let addresses = self.explicit_tls.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        let mut names: Vec<Host> = addresses.map(Host::from).chain(self.explicit_tls_names.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns an error for values that conflict with each other, as a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let port = self.transparent_port;
        for (key, addresses) in [("explicit", &self.explicit), ("explicit_tls", &self.explicit_tls)] {
            if let Some(taken) = addresses.iter().find(|address| address.port() == port) {
                return Err(format!(
                    "listen.{key} ({taken}) and listen.transparent_port ({port}) need different ports"
                ));
            }
        }
        if let Some(both) = self.explicit_tls.iter().find(|address| self.explicit.contains(address)) {
            return Err(format!(
                "listen.explicit and listen.explicit_tls need different addresses, not both {both}"
            ));
        }
        if !self.explicit_tls.is_empty() && self.proxy_names().is_empty() {
            return Err(
                "listen.explicit_tls with an unspecified address needs listen.explicit_tls_names for its certificate"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
