//! The descriptors that come with a client's request.
#![allow(unsafe_code, reason = "getsockopt(2) of SO_DOMAIN")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// The descriptors of a [`Request`](super::wire::Request).
#[derive(Debug)]
pub(crate) struct RequestDescriptors {
    /// Standard input, output, error.
    pub(crate) standard: [OwnedFd; 3],
    /// The directory in which the command starts.
    pub(crate) directory: OwnedFd,
    /// The other shared directories.
    pub(crate) shares: Vec<OwnedFd>,
}

impl RequestDescriptors {
    /// Checks the descriptors of a request. Directories as standard files would bypass the private view of the files.
    /// Network sockets were made outside of the cgroup, and data sent over them passes no hook.
    pub(crate) fn check(descriptors: Vec<OwnedFd>) -> Result<RequestDescriptors, String> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or("the request has too few descriptors");
        let (standard, directory) = ([next()?, next()?, next()?], next()?);
        for (name, descriptor) in ["input", "output", "error"].into_iter().zip(&standard) {
            let kind =
                nix::sys::stat::fstat(descriptor).map_err(|errno| errno.to_string())?.st_mode & libc::S_IFMT;
            if kind == libc::S_IFDIR {
                return Err(format!("standard {name} is a directory"));
            }
            if kind == libc::S_IFSOCK && !is_unix(descriptor.as_fd()) {
                return Err(format!("standard {name} is a network connection made outside: use a pipe"));
            }
        }
        Ok(RequestDescriptors { standard, directory, shares: descriptors.collect() })
    }

    /// Returns the path of the directory. Empty if it is gone, or only in another process's view.
    pub(crate) fn path(&self) -> PathBuf {
        physical_path(&self.directory).unwrap_or_default()
    }
}

/// Returns the path of a directory in this process's view. `None` if it is gone, or only in another process's view.
pub(crate) fn physical_path(directory: &OwnedFd) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    let (there, here) = (nix::sys::stat::stat(&path).ok()?, nix::sys::stat::fstat(directory).ok()?);
    let is_same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino);
    (is_same && here.st_mode & libc::S_IFMT == libc::S_IFDIR).then_some(path)
}

fn is_unix(socket: BorrowedFd<'_>) -> bool {
    let mut domain: libc::c_int = 0;
    // The size of a c_int.
    let mut length: libc::socklen_t = 4;
    // SAFETY: the kernel writes at most `length` bytes to `domain`, which is that large.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut length,
        )
    };
    asked == 0 && domain == libc::AF_UNIX
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use super::*;

    #[test]
    fn directories_and_network_sockets_are_refused_as_standard_files() {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let directory = || OwnedFd::from(std::fs::File::open("/").unwrap());
        let network = || OwnedFd::from(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let unix = || OwnedFd::from(UnixStream::pair().unwrap().0);
        assert_eq!(
            RequestDescriptors::check(vec![file(), unix(), file(), directory()]).unwrap().path(),
            Path::new("/")
        );
        let swapped = RequestDescriptors::check(vec![file(), directory(), file(), directory()]);
        assert!(swapped.unwrap_err().contains("output"));
        assert!(
            RequestDescriptors::check(vec![network(), file(), file(), directory()])
                .unwrap_err()
                .contains("input")
        );
        assert!(RequestDescriptors::check(vec![file(), file(), file()]).is_err());
        // A file that is not a directory has no path to start in.
        assert_eq!(
            RequestDescriptors::check(vec![file(), file(), file(), file()]).unwrap().path(),
            Path::new("")
        );
    }
}
