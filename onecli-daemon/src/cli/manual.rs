//! Manual pages of both programs, from their command lines.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;

use super::daemon::DaemonArgs;

/// Writes `onecli.1`, `onecli-agent.1`, `onecli-agent-add.1` and so on, and `onecli-daemon.8`.
pub(super) fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(super::definition(), directory)?;
    let mut page = Vec::new();
    let daemon = clap_mangen::Man::new(DaemonArgs::command());
    daemon.section("8").manual("System administration").render(&mut page)?;
    fs::write(directory.join("onecli-daemon.8"), page)
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_programs_have_pages() {
        let dir = tempfile::tempdir().unwrap();
        let pages = dir.path().join("man");
        super::write(&pages).unwrap();
        for (page, text) in
            [("onecli.1", "onecli"), ("onecli-agent-add.1", "factors"), ("onecli-daemon.8", "data")]
        {
            let written = std::fs::read_to_string(pages.join(page)).unwrap();
            assert!(written.contains(text), "{page}");
        }
        assert!(!pages.join("onecli-manual.1").exists(), "hidden commands have no page");
    }
}
