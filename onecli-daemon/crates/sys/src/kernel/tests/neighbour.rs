//! Another machine from the kernel's point of view: a network namespace at the other end of a veth pair.

use std::{
    fs,
    net::Ipv4Addr,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

/// This side's address.
pub(super) const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The other side's address.
pub(super) const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

type Work = Box<dyn FnOnce() + Send>;

/// A thread in its own network namespace, which ends with it.
pub(super) struct Neighbour {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// Joins the calling thread's namespace to a new one.
    pub(super) fn new() -> Self {
        let (work, todo) = mpsc::channel::<Work>();
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
            sender.send(gettid()).expect("tell");
            for work in todo {
                work();
            }
        });
        let tid = receiver.recv().expect("the neighbour's thread");
        ip(&["link", "add", "here", "type", "veth", "peer", "name", "there", "netns", &tid.to_string()]);
        ip(&["address", "add", &format!("{HERE}/24"), "dev", "here"]);
        ip(&["link", "set", "here", "up"]);
        let neighbour = Self { work: Some(work), thread: Some(thread) };
        neighbour.run(|| {
            ip(&["link", "set", "lo", "up"]);
            ip(&["address", "add", &format!("{THERE}/24"), "dev", "there"]);
            ip(&["link", "set", "there", "up"]);
        });
        neighbour
    }

    /// Runs `work` in the other namespace and waits for it.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let work = Box::new(move || sender.send(work()).expect("tell"));
        self.work.as_ref().expect("alive").send(work).expect("alive");
        receiver.recv().expect("the neighbour failed")
    }

    /// Returns the number of TCP segments and UDP datagrams received there.
    pub(super) fn received(&self) -> (u64, u64) {
        self.run(|| {
            let snmp = fs::read_to_string("/proc/thread-self/net/snmp").expect("snmp");
            let value = |protocol: &str, name: &str| {
                let mut lines =
                    snmp.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
                let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
                let column = names.split(' ').position(|word| word == name).expect("column");
                values.split(' ').nth(column).expect("value").parse::<u64>().expect("number")
            };
            (value("Tcp", "InSegs"), value("Udp", "InDatagrams") + value("Udp", "NoPorts"))
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            // `run` has already reported a panic there.
            let _failed = thread.join();
        }
    }
}

pub(super) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("the `ip` command");
    assert!(status.success(), "ip {arguments:?}");
}
