//! Small file systems that a test fills, freezes or aborts.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs (tmpfs(5)) mounted over a directory. Drop unmounts it, even if a process still uses it.
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts `kib` KiB over `dir`, accessible to its owner alone. Needs root: see [`crate::need::root`].
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

    /// Removes the file that [`SmallDisk::fill`] wrote.
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
            eprintln!("{} was not unmounted: {e}", self.dir.display());
        }
    }
}

/// An ext4 in a file, mounted over a directory, which a test can freeze and abort. Drop unmounts it.
pub struct LoopDisk {
    dir: PathBuf,
    image: PathBuf,
    frozen: std::cell::Cell<bool>,
}

impl LoopDisk {
    /// Mounts `mib` MiB over `dir`, accessible to its owner alone. Returns `None` and notes it if this machine has no
    /// loop devices.
    #[must_use]
    pub fn over(dir: &Path, mib: u64) -> Option<Self> {
        let image = dir.with_added_extension("ext4");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("the image");
        let path = |path: &Path| path.to_str().expect("a UTF-8 path").to_owned();
        let made = command("mkfs.ext4", &["-q", "-F", "-m", "0", &path(&image)]);
        if !made || !command("mount", &["-o", "loop", &path(&image), &path(dir)]) {
            crate::need::note("a disk that hangs", "no mkfs.ext4, or no loop device");
            return None;
        }
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
        Some(Self { dir: dir.to_owned(), image, frozen: std::cell::Cell::new(false) })
    }

    /// Blocks every write (ioctl FIFREEZE).
    pub fn freeze(&self) {
        assert!(command("fsfreeze", &["--freeze", self.dir.to_str().unwrap()]), "freeze");
        self.frozen.set(true);
    }

    /// Unblocks writes.
    pub fn thaw(&self) {
        assert!(command("fsfreeze", &["--unfreeze", self.dir.to_str().unwrap()]), "thaw");
        self.frozen.set(false);
    }

    /// Makes every write fail, as after a device error: ext4 aborts its journal and becomes read-only.
    pub fn abort(&self) {
        let done = command("mount", &["-o", "remount,abort", self.dir.to_str().unwrap()]);
        assert!(done, "mount -o remount,abort");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.frozen.get() {
            self.thaw();
        }
        if let Err(e) = umount2(&self.dir, MntFlags::MNT_DETACH) {
            eprintln!("{} was not unmounted: {e}", self.dir.display());
        }
        std::fs::remove_file(&self.image).ok();
    }
}

fn command(program: &str, args: &[&str]) -> bool {
    std::process::Command::new(program).args(args).status().is_ok_and(|status| status.success())
}
