//! Rights that the daemon's processes retain while they serve, and actions that remain impossible for an attacker who
//! controls one.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use onecli_tests::client::{Run, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};

use crate::scene::{API, Scene, VALUE, Way, curl_with_key};

/// The number in capabilities(7).
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// A line of `/proc/PID/status`.
fn status(dir: &Path, name: &str) -> String {
    let text = fs::read_to_string(dir.join("status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

fn capabilities(dir: &Path, set: &str) -> u64 {
    u64::from_str_radix(&status(dir, set), 16).unwrap()
}

/// The process itself and its other threads, as directories of `/proc`.
fn threads(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|t| t.unwrap().path()).collect()
}

/// The kinds of a process's descriptors, without their numbers.
fn descriptors(pid: u32) -> BTreeSet<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// The process id of the daemon's helper.
fn helper(daemon: &Daemon) -> u32 {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap();
    let children: Vec<u32> = children.split_whitespace().map(|c| c.parse().unwrap()).collect();
    // If the executor has a user, it is another child.
    let is_helper =
        |pid: &&u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "onecli-helper\n";
    *children.iter().find(is_helper).unwrap_or_else(|| panic!("the helper is none of {children:?}"))
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The serving process has no capability in any set of any thread, and cannot gain one: it never executes another
/// program.
#[test]
fn serving_process_has_no_capability() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    scene
        .run(Way::Transparent, curl_with_key(&scene.url("/echo"), &[]))
        .ok("a request, so that all threads are started");
    scene.injected_once(&format!("Bearer {VALUE}"));
    let threads = threads(scene.daemon.pid());
    assert!(threads.len() > 1, "{threads:?}");
    for thread in threads {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(capabilities(&thread, set), 0, "{set} of {}", thread.display());
        }
        assert_eq!(status(&thread, "NoNewPrivs"), "1", "{}", thread.display());
        assert_eq!(status(&thread, "Seccomp"), "2", "{}", thread.display());
    }
}

/// A process with a link or program descriptor could detach or replace the program: neither process has one.
#[test]
fn no_process_of_the_daemon_holds_a_link_or_a_program() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    // Makes the helper check the links.
    scene.run(Way::Transparent, Run::new("true")).ok("onecli run");
    let (serving, helper) = (descriptors(scene.daemon.pid()), descriptors(helper(&scene.daemon)));
    for held in [&serving, &helper] {
        let dangerous =
            |d: &&String| d.contains("bpf_link") || d.contains("bpf-prog") || d.contains("bpf_prog");
        assert_eq!(held.iter().find(dangerous), None, "{held:?}");
    }
    assert!(serving.iter().any(|d| d.contains("bpf-map")), "{serving:?}");
    assert!(!helper.iter().any(|d| d.contains("bpf")), "{helper:?}");
    // The standard descriptors, the channel, its own network namespace, and none of the daemon's descriptors.
    let foreign =
        |d: &&String| !["/dev/null", "daemon.log", "socket:", "net:["].iter().any(|k| d.contains(k));
    assert_eq!(helper.iter().find(foreign), None, "{helper:?}");
}

/// The helper retains the rights to enter network namespaces, under a filter, and exits with the daemon.
#[test]
fn helper_retains_four_capabilities_and_exits_with_the_daemon() {
    if !need::bpf("everything") {
        return;
    }
    let mut scene = Scene::new();
    let pid = helper(&scene.daemon);
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let kept = CAP_DAC_READ_SEARCH | CAP_NET_BIND_SERVICE | CAP_SYS_PTRACE | CAP_SYS_ADMIN;
    for (set, expected) in
        [("CapInh", 0), ("CapPrm", kept), ("CapEff", kept), ("CapBnd", kept), ("CapAmb", 0)]
    {
        assert_eq!(capabilities(&dir, set), expected, "{set}");
    }
    assert_eq!((status(&dir, "NoNewPrivs").as_str(), status(&dir, "Seccomp").as_str()), ("1", "2"));
    scene.daemon.kill();
    let gone = wait_for(Duration::from_secs(5), || (!is_running(pid)).then_some(()));
    assert!(gone.is_some(), "the helper outlives the daemon");
}

/// The daemon cannot work without the helper, and the helper cannot be restarted. So the daemon exits in order to be
/// restarted, and until then the agents are refused.
#[test]
fn daemon_exits_when_its_helper_dies() {
    if !need::bpf("everything") {
        return;
    }
    let mut scene = Scene::new();
    let (daemon, helper) = (scene.daemon.pid(), helper(&scene.daemon));
    let helper = Pid::from_raw(i32::try_from(helper).unwrap());
    kill(helper, Signal::SIGKILL).unwrap();
    let ended = wait_for(Duration::from_secs(30), || (!is_running(daemon)).then_some(()));
    assert!(ended.is_some(), "the daemon serves without its helper: {}", scene.daemon.home().log());
    assert!(scene.daemon.home().log().contains("the helper process"), "{}", scene.daemon.home().log());
    scene.daemon.restart();
    scene.run(Way::Transparent, curl_with_key(&scene.url("/echo"), &[])).ok("a new daemon serves");
    scene.injected_once(&format!("Bearer {VALUE}"));
}

/// The serving process is uid 0 without capabilities. It owns root's files and could remove or open pins that root
/// owns: `bpf(BPF_OBJ_GET)` checks only the file's permissions since Linux 5.19. So the pins are below a directory that
/// belongs to no user (opening needs `CAP_DAC_READ_SEARCH`, changing `CAP_DAC_OVERRIDE`). The filter of the serving
/// process leaves only the bpf(2) commands for map elements.
///
/// Such a process can still do the following:
///
/// - It can write files that root owns, including `/proc/sys`, and through some of them gain all rights of root. The
///   unit makes the system and `/proc/sys` read-only for it; without systemd nothing does.
/// - It can rename the pin directory as a whole if it owns the directory above.
/// - It can remove agents' entries from maps.
///
/// The last two leave the programs attached: agents are refused more, not less.
#[test]
fn uid_0_without_capabilities_cannot_detach_programs() {
    if !need::bpf("everything") || !need::program("everything", "setpriv", "util-linux") {
        return;
    }
    let scene = Scene::new();
    let pins = scene.daemon.home().pins();
    let versions = fs::read_dir(&pins).unwrap();
    let version = versions.map(|v| v.unwrap().path()).next().expect("pins of a version");
    let link = version.join("links/connect4");
    assert!(link.exists(), "{} is pinned", link.display());
    let powerless = |program: &str, args: &[&Path]| {
        let without = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"];
        Run::new("setpriv").args(without).arg(program).args(args.iter().map(|a| a.as_os_str())).outcome()
    };
    let identity = powerless("cat", &[Path::new("/proc/self/status")]).ok("setpriv");
    assert!(identity.contains("CapEff:\t0000000000000000") && identity.contains("Uid:\t0"), "{identity}");
    let elsewhere = pins.with_extension("moved");
    let attempts: [(&str, &[&Path]); 6] = [
        ("ls", &[&pins]),
        ("stat", &[&link]),
        ("rm", &[&link]),
        ("rmdir", &[&pins]),
        ("mv", &[&link, &elsewhere]),
        ("chown", &[Path::new("root"), &pins]),
    ];
    for (program, args) in attempts {
        let outcome = powerless(program, args);
        assert!(!outcome.status.success(), "{program} {args:?}: {outcome:?}");
        assert!(link.exists(), "{program} {args:?} removed a pin");
    }
    scene
        .run(Way::Transparent, curl_with_key(&scene.url("/echo"), &[]))
        .ok("agents are still confined and served");
    scene.injected_once(&format!("Bearer {VALUE}"));
}

/// The port is bound with the privilege and used after it is dropped: the daemon serves without `CAP_NET_BIND_SERVICE`.
#[test]
fn port_below_1024_is_served_without_capabilities() {
    if !need::root("everything") {
        return;
    }
    let free = (600..1024).find(|&p| TcpListener::bind((Ipv4Addr::LOCALHOST, p)).is_ok());
    let port = free.expect("a free port below 1024");
    let upstream = Upstream::start(&[API]);
    let config = format!("[listen]\nexplicit = [\"127.0.0.1:{port}\"]\n");
    let daemon = Daemon::builder().upstream(&upstream).config(&config).start();
    let agent = daemon.add_agent("outside", &["--factors", "token"]);
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
    let _ = daemon.grant(&agent, "api");
    let proxy = format!("http://x:{}@127.0.0.1:{port}", agent.token);
    let run = curl(&upstream.https_url(API, "/echo")).args(["--proxy", &proxy]).trusting(&daemon.ca_file());
    assert_eq!(run.outcome().reply().verdict(), 200);
    assert_eq!(upstream.only_request().count(VALUE), 1);
    assert_eq!(capabilities(Path::new(&format!("/proc/{}", daemon.pid())), "CapEff"), 0);
}
