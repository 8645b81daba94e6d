//! Values in files on the daemon's host. They are read at each use, so an operator rotates a secret by replacing
//! the file.
//!
//! A change applies to the next request, in whatever way it is made: writing in place, renaming over it, replacing
//! a link in its path. No notification could be earlier, and each kind misses some changes. inotify(7) misses
//! another host's writes, a link's new target, and events that overflow its queue. The modification time misses two
//! writes within one tick of the kernel's clock.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use onecli_model::{SecretValue, SourceFile};
use onecli_sys::trusted;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// The largest file, in bytes: above the bound of a value, to allow for the line ends of a document.
const LARGEST: u64 = 32 << 10;
/// How long a read may take. A file on an unreachable server must not block a request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of threads that read one file at a time.
pub(super) const TURNS: usize = 4;
/// The number of files whose semaphores are cached.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How often a read is retried if the file changes meanwhile, and the pause between tries.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The reason why a file returned no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the value from {path}: {reason}")]
pub struct FileError {
    path: String,
    reason: String,
}

/// Reads files, each with few threads at a time. On an unreachable server a thread may wait for ever, so there must
/// not be one for every request of an agent.
#[derive(Debug)]
pub struct Files(Mutex<LruCache<PathBuf, Arc<Semaphore>>>);

impl Default for Files {
    fn default() -> Files {
        Files(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Files {
    /// Reads a value.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn read(&self, file: &SourceFile) -> Result<SecretValue, FileError> {
        let read = self.on_a_thread(file.path(), read_settled).await;
        read.map_err(|reason| FileError { path: file.to_string(), reason })
    }

    /// Reads a file with another function, under the same bounds on threads and time.
    ///
    /// # Errors
    /// Those of `read`, and a timeout.
    pub(super) async fn on_a_thread<T: Send + 'static>(
        &self,
        path: &Path,
        read: fn(&Path) -> Result<T, String>,
    ) -> Result<T, String> {
        let reading = async {
            let turn = self.turns(path).acquire_owned().await.map_err(|error| error.to_string())?;
            let path = path.to_owned();
            // The thread holds its permit until it is done, even if no caller waits.
            let outcome = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                read(&path)
            });
            outcome.await.map_err(|_| "reading it was interrupted".to_owned())?
        };
        let late = |_| format!("it could not be read within {PATIENCE:?}");
        tokio::time::timeout(PATIENCE, reading).await.map_err(late)?
    }

    pub(super) fn turns(&self, path: &Path) -> Arc<Semaphore> {
        let mut all = self.0.lock();
        Arc::clone(all.get_or_insert(path.to_owned(), || Arc::new(Semaphore::new(TURNS))))
    }
}

/// Waits a little for a writer that rewrites the file in place: half a value is not usable.
fn read_settled(path: &Path) -> Result<SecretValue, String> {
    for _ in 0..TRIES {
        match read_once(path)? {
            Some(outcome) => return outcome,
            None => std::thread::sleep(PAUSE),
        }
    }
    Err("it is empty, or changes constantly".to_owned())
}

/// Returns `None` if the file is empty, or changed during the read.
fn read_once(path: &Path) -> Result<Option<Result<SecretValue, String>>, String> {
    let file = trusted::open(path)?;
    let facts = |file: &File| file.metadata().map_err(|error| error.to_string());
    let before = facts(&file)?;
    if !before.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(LARGEST + 1).unwrap_or(0)));
    (&file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    if bytes.is_empty() || identity(&before) != identity(&facts(&file)?) {
        return Ok(None);
    }
    Ok(Some(SecretValue::of_document(&bytes).map_err(|error| error.to_string())))
}

/// The metadata that changes with each write.
fn identity(facts: &Metadata) -> impl PartialEq + use<> {
    (facts.size(), facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn value(path: &Path) -> Result<String, String> {
        read_settled(path).map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
    }

    #[test]
    fn value_is_one_line_of_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "sk-12345678\n").unwrap();
        assert_eq!(value(&file).unwrap(), "sk-12345678");
        // Replaced, as rotation programs do.
        std::fs::write(dir.path().join("new"), "sk-87654321\n").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(value(&file).unwrap(), "sk-87654321");
        for (content, why) in [
            ("short\n".to_owned(), "shorter"),
            ("sk-12345678\nsk-87654321\n".to_owned(), "control character"),
            ("a".repeat(40_000), "larger than"),
        ] {
            std::fs::write(&file, content).unwrap();
            assert!(value(&file).unwrap_err().contains(why), "{why}");
        }
        assert!(value(dir.path()).unwrap_err().contains("not a regular file"));
        assert!(value(&dir.path().join("none")).is_err());
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(value(&pipe).unwrap_err().contains("not a regular file"));
    }

    /// Each way of replacing the file applies to the next read, even two within one tick of the kernel's clock.
    #[tokio::test]
    async fn every_change_applies_to_the_next_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let read = async |files: &Files, name: &str| {
            let file: SourceFile = at(name).to_str().unwrap().parse().unwrap();
            files.read(&file).await.map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
        };
        let files = Files::default();
        for number in 100..200 {
            std::fs::write(at("key"), format!("sk-12345-{number}\n")).unwrap();
            assert_eq!(read(&files, "key").await.unwrap(), format!("sk-12345-{number}"), "in place");
        }
        if nix::unistd::geteuid().is_root() {
            for number in [1, 2] {
                std::fs::create_dir(at(&number.to_string())).unwrap();
                std::fs::write(at(&format!("{number}/key")), format!("sk-linked-{number}")).unwrap();
                symlink(number.to_string(), at("next")).unwrap();
                std::fs::rename(at("next"), at("now")).unwrap();
                assert_eq!(read(&files, "now/key").await.unwrap(), format!("sk-linked-{number}"));
            }
        }
        // A writer rewrites the file in place, slowly.
        let long = format!("sk-{}", "x".repeat(2000));
        let writer = std::thread::spawn({
            let (path, long) = (at("key"), long.clone());
            move || {
                for _ in 0..20 {
                    let mut file = File::create(&path).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                    file.write_all(long.as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        while !writer.is_finished() {
            let value = read(&files, "key").await.unwrap();
            assert!(value == long || value == "sk-12345-199", "{} bytes", value.len());
        }
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn hanging_reads_use_few_threads() {
        let (files, file): (_, SourceFile) = (Files::default(), "/dev/null".parse().unwrap());
        let hanging =
            files.turns(file.path()).acquire_many_owned(u32::try_from(TURNS).unwrap()).await.unwrap();
        let waiting = files.read(&file);
        tokio::time::timeout(Duration::from_millis(50), waiting).await.expect_err("no permit is free");
        drop(hanging);
        let error = files.read(&file).await.unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
