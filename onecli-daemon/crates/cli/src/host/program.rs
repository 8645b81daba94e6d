//! Host programs that a command runs to completion.

use std::process::{Command, Stdio};

/// Runs `program` with empty standard input, found in the system's program directories.
///
/// # Errors
/// Why it could not be started, or its standard error.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
