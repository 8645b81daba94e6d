//! A file system that is soon full.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs (tmpfs(5)) over a directory. Dropping it unmounts it, also under a process that still uses it.
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts `kib` KiB over `dir`, for its owner alone. Needs root: see [`crate::need::root`].
    #[must_use]
    pub fn over(dir: &Path, kib: u32) -> Self {
        let options = format!("size={kib}k,mode=700");
        mount(Some("none"), dir, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .unwrap_or_else(|e| panic!("mount a tmpfs over {}: {e}", dir.display()));
        Self { dir: dir.to_owned() }
    }

    /// Fills it to the last page.
    pub fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).expect("filler");
        while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    /// Takes back what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("remove the filler");
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(e) = umount2(&self.dir, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {e}", self.dir.display());
        }
    }
}
