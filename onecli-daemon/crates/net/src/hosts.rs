//! hosts(5): names with addresses set by the host's administrator. They take precedence over DNS.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use onecli_model::Host;
use parking_lot::Mutex;

/// The hosts file. A change takes effect at the next lookup without a restart, as for every program of the host.
#[derive(Debug)]
pub(super) struct HostsFile {
    path: PathBuf,
    read: Mutex<HostsContent>,
}

/// The parsed content, and the file's metadata at that time.
#[derive(Debug, Default)]
struct HostsContent {
    stamp: Option<(SystemTime, u64)>,
    hosts: Hosts,
}

impl HostsFile {
    /// Uses the file at `path`, which may be missing.
    pub(super) fn new(path: impl Into<PathBuf>) -> HostsFile {
        HostsFile { path: path.into(), read: Mutex::default() }
    }

    /// Returns the addresses of `host` in the file, of both families. One family alone is the complete answer, as for
    /// the C library: DNS is not queried for the other.
    pub(super) fn addresses(&self, host: &Host) -> Vec<IpAddr> {
        let Some(mut name) = host.as_name().and_then(|name| Name::from_ascii(name).ok()) else {
            return Vec::new();
        };
        name.set_fqdn(true);
        let mut read = self.read.lock();
        read.refresh(&self.path);
        [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(|family| read.hosts.lookup_static_host(&Query::query(name.clone(), family)))
            .flat_map(|found| {
                found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl HostsContent {
    fn refresh(&mut self, path: &std::path::Path) {
        let stamp = path.metadata().and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        if stamp == self.stamp {
            return;
        }
        let mut hosts = Hosts::default();
        match File::open(path).and_then(|file| hosts.read_hosts_conf(file)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot read the hosts file"),
        }
        *self = HostsContent { stamp, hosts };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file_is_reread_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let file = HostsFile::new(&path);
        let check = |name: &str, expected: &[&str]| {
            let found = file.addresses(&name.parse().unwrap());
            assert_eq!(found.iter().map(IpAddr::to_string).collect::<Vec<_>>(), expected, "{name}");
        };
        check("a.test", &[]);
        std::fs::write(&path, "192.0.2.1 a.test A2.test # b.test\n2001:db8::1\ta.test\n\nnonsense c.test\n")
            .unwrap();
        check("a.test", &["2001:db8::1", "192.0.2.1"]);
        check("A2.TEST", &["192.0.2.1"]);
        check("b.test", &[]);
        check("c.test", &[]);
        check("192.0.2.1", &[]);
        std::fs::write(&path, "192.0.2.22 a.test\n").unwrap();
        check("a.test", &["192.0.2.22"]);
        std::fs::remove_file(&path).unwrap();
        check("a.test", &[]);
    }
}
