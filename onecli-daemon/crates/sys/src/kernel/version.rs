//! The version of the running kernel.

/// Returns the running kernel's release, from uname(2).
pub(super) fn release() -> String {
    nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns major and minor version of a release such as `6.1.0-18-amd64`.
pub(super) fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
