//! Manual pages, generated from the command line.

use std::fs;
use std::io;
use std::path::Path;

/// Writes `onecli.1`, `onecli-agent.1`, `onecli-agent-add.1` and so on.
pub(crate) fn write(definition: clap::Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(definition, directory)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let pages = dir.path().join("man");
        super::write(crate::definition(), &pages).unwrap();
        for (page, text) in [("onecli.1", "onecli"), ("onecli-agent-add.1", "factors")] {
            let written = std::fs::read_to_string(pages.join(page)).unwrap();
            assert!(written.contains(text), "{page}");
        }
        assert!(!pages.join("onecli-manual.1").exists(), "hidden commands have no page");
    }
}
