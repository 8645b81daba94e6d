//! Files and programs of the user, read with the user's rights and within limits.

use std::fs::File;
use std::io::{Read, Take};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use onecli_model::Clock as _;
use onecli_sys::{SystemClock, trusted};
use zeroize::Zeroizing;

/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The most output of a program, in bytes, and its time limit.
const MAX_PRINTED: u64 = 16 * 1024;
const PROGRAM_TIME: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Reads a file as text. Only regular files are read, because a FIFO or device could block. Root reads only files that
/// root owns: another user could have created a link to any file.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file =
        File::options().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if geteuid().is_root() && found.uid() != 0 {
        return Err("it belongs to another user, and root does not read it: run 'onecli setup' as that user"
            .to_owned());
    }
    if found.len() > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    text(file.take(MAX_FILE + 1), MAX_FILE)
}

fn text(source: Take<impl Read>, most: u64) -> Result<Zeroizing<String>, String> {
    let mut source = source;
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    source.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("it is larger than {most} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not text in UTF-8".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Finds a program on the user's PATH. For root, only a program that no other user can replace.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    candidates.find(|path| {
        let is_program = path.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
        is_program && (!geteuid().is_root() || trusted::program(path).is_ok())
    })
}

/// Returns the output of a program. The program is killed after ten seconds.
pub(super) fn printed(program: &Path, args: &[&str]) -> Result<Zeroizing<String>, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let pipe = child.stdout.take().ok_or("it has no standard output")?;
    let (sender, printed) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(text(pipe.take(MAX_PRINTED + 1), MAX_PRINTED)));
    let is_success = ends(&mut child)?;
    // A child process left behind may keep the pipe open.
    let printed = printed.recv_timeout(PROGRAM_TIME).map_err(|_| "its output does not end".to_owned())?;
    if is_success { printed } else { Err("it failed; are you logged in?".to_owned()) }
}

fn ends(child: &mut Child) -> Result<bool, String> {
    let started: Instant = SystemClock.instant();
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status.success());
        }
        if SystemClock.instant().duration_since(started) > PROGRAM_TIME {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it did not end within {} seconds", PROGRAM_TIME.as_secs()));
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_size_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(path("large"), vec![b'a'; 1 + (1 << 20)]).unwrap();
        std::fs::write(path("bytes"), [0xff, 0xfe]).unwrap();
        std::fs::write(path("text"), "A=b").unwrap();
        std::os::unix::fs::symlink("fifo", path("link")).unwrap();
        for (name, word) in [
            ("fifo", "regular"),
            ("link", "regular"),
            ("large", "larger"),
            ("bytes", "UTF-8"),
            (".", "regular"),
            ("none", "No such file"),
        ] {
            let error = read(&path(name)).unwrap_err();
            assert!(error.contains(word), "{name}: {error}");
        }
        assert_eq!(*read(&path("text")).unwrap(), "A=b");
        assert!(read(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn program_is_limited_in_time_and_output() {
        assert_eq!(*printed(Path::new("/bin/echo"), &["x"]).unwrap(), "x\n");
        assert!(printed(Path::new("/bin/false"), &[]).is_err());
        assert!(printed(Path::new("/usr/bin/head"), &["-c", "20000", "/dev/zero"]).is_err());
    }
}
