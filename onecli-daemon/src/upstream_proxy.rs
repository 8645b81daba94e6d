//! The proxy of the host's network, from the configuration.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use onecli_config::Upstream;
use onecli_proxy::UpstreamProxy;
use zeroize::Zeroizing;

use crate::process::AppError;

/// The maximum length of a password, in bytes, including the line end that editors add.
const MAX_PASSWORD: u64 = 1024;

/// Reads the password file, if one is configured.
pub(super) fn upstream_proxy(config: &Upstream) -> Result<Option<UpstreamProxy>, AppError> {
    let Some(mut url) = config.proxy.clone() else { return Ok(None) };
    if let Some(path) = &config.proxy_password_file {
        let refused = |reason: String| AppError::ProxyPassword { path: path.display().to_string(), reason };
        let file = File::open(path).map_err(|error| refused(error.to_string()))?;
        let mode = file.metadata().map_err(|error| refused(error.to_string()))?.mode();
        if mode & 0o077 != 0 {
            return Err(refused("users other than its owner can read it: run chmod 0400".to_owned()));
        }
        let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_PASSWORD).unwrap_or(0)));
        file.take(MAX_PASSWORD).read_to_string(&mut text).map_err(|error| refused(error.to_string()))?;
        let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if password.is_empty() || password.chars().any(char::is_control) {
            return Err(refused("it contains no valid password".to_owned()));
        }
        url = url
            .with_password(password)
            .map_err(|_| refused("upstream.proxy names no user: write http://USER@HOST:PORT".to_owned()))?;
    }
    Ok(Some(UpstreamProxy { url, bypass: config.no_proxy.clone() }))
}
