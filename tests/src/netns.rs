//! Temporary network namespaces, joined by veth pairs: several hosts on one machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::client::Run;
use crate::unique;

/// A network namespace with its loopback interface up. Drop removes it and its interfaces.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Creates a namespace named after this process. Needs root and iproute2.
    #[must_use]
    pub fn new() -> Self {
        let name = format!("onecli-test-{}-{}", std::process::id(), unique());
        ip(&["netns", "add", &name]);
        let netns = Self { name };
        ip(&["-n", &netns.name, "link", "set", "lo", "up"]);
        netns
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file of the namespace, for nsenter(1), which does not change the mounts.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        // The directory where ip-netns(8) creates them.
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` inside the namespace, with the arguments in one string.
    pub fn ip(&self, args: &str) {
        let args: Vec<_> = ["-n", &self.name].into_iter().chain(args.split_whitespace()).collect();
        ip(&args);
    }

    /// Sets a sysctl of the namespace, for example `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let mut tee = self.command("sh");
        let status = tee.args(["-c", r#"echo "$2" > "/proc/sys/$1""#, "sh", name, value]).status();
        assert!(status.is_ok_and(|s| s.success()), "sysctl {name} = {value}");
    }

    /// Joins two namespaces by a veth pair and assigns an address to each end, for example `192.0.2.1/30`. Returns the
    /// names of the two ends.
    pub fn join(&self, address: &str, other: &Netns, other_address: &str) -> (String, String) {
        // Interface names have at most 15 characters.
        let tag = format!("{}-{}", std::process::id() % 1_000_000, unique() % 1000);
        let (a, b) = (format!("oa{tag}"), format!("ob{tag}"));
        ip(&[
            "link",
            "add",
            &a,
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            &b,
            "netns",
            &other.name,
        ]);
        for (netns, link, address) in [(self, &a, address), (other, &b, other_address)] {
            ip(&["-n", &netns.name, "address", "add", address, "dev", link]);
            ip(&["-n", &netns.name, "link", "set", link, "up"]);
        }
        (a, b)
    }

    /// Joins the namespace to that of this process by a veth pair, as a container engine does. The pair is removed with
    /// the namespace. Returns the name of the inner end.
    pub fn join_host(&self, address: &str, host_address: &str) -> String {
        let tag = format!("{}-{}", std::process::id() % 1_000_000, unique() % 1000);
        let (inside, outside) = (format!("oa{tag}"), format!("ob{tag}"));
        ip(&["link", "add", &inside, "netns", &self.name, "type", "veth", "peer", "name", &outside]);
        ip(&["-n", &self.name, "address", "add", address, "dev", &inside]);
        ip(&["-n", &self.name, "link", "set", &inside, "up"]);
        ip(&["address", "add", host_address, "dev", &outside]);
        ip(&["link", "set", &outside, "up"]);
        inside
    }

    /// `run` inside the namespace. Everything else is as outside; `ip netns exec` would mount another `/sys`.
    #[must_use]
    pub fn wrap(&self, run: &Run) -> Run {
        let mut wrapped = run.clone();
        wrapped.program = "nsenter".into();
        wrapped.args.clear();
        wrapped
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(run.program())
            .args(run.arguments())
    }

    /// A counter of IPv4, TCP or UDP in the namespace (`/proc/net/snmp`), since its creation.
    #[must_use]
    pub fn counter(&self, protocol: &str, name: &str) -> u64 {
        let text = self.wrap(&Run::new("cat").arg("/proc/thread-self/net/snmp")).outcome().ok("snmp");
        let mut lines = text.lines().filter_map(|l| l.strip_prefix(protocol)?.strip_prefix(": "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let at = names.split(' ').position(|n| n == name);
        let value = at.and_then(|at| values.split(' ').nth(at)?.parse().ok());
        value.unwrap_or_else(|| panic!("no {protocol} {name} in {text}"))
    }

    /// Its inode number, as shown by the audit log and `/proc/PID/ns/net`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(self.path()).expect("the namespace exists").ino()
    }

    /// A command that runs inside the namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        match Command::new("ip").args(["netns", "delete", &self.name]).status() {
            Ok(status) if status.success() => {}
            other => eprintln!("network namespace {} was not removed: {other:?}", self.name),
        }
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip runs: install Debian's package iproute2");
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need;

    #[test]
    fn two_hosts_see_each_other_and_nothing_stays() {
        if !need::root("everything") || !need::program("everything", "ip", "iproute2") {
            return;
        }
        let (a, b) = (Netns::new(), Netns::new());
        let _ends = a.join("192.0.2.1/30", &b, "192.0.2.2/30");
        let route = a.command("ip").args(["route", "get", "192.0.2.2"]).output().unwrap();
        let route = String::from_utf8_lossy(&route.stdout).into_owned();
        assert!(route.contains("src 192.0.2.1"), "{route}");
        let names = [a.name().to_owned(), b.name().to_owned()];
        drop((a, b));
        let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        assert!(!names.iter().any(|n| left.contains(n)), "{left}");
    }
}
