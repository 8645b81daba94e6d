//! Tests of the planned environment, and of an agent as the kernel sees it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid};

use super::*;
use crate::process::cgroup;

fn user() -> LaunchUser {
    LaunchUser {
        name: "robot".to_owned(),
        uid: Uid::from_raw(990),
        gid: Gid::from_raw(991),
        groups: vec![Gid::from_raw(991)],
        home: "/srv/robot".into(),
        shell: "/bin/sh".into(),
    }
}

fn plan(caller: &[(&str, &str)], keep: &[&str], proxy: Option<&str>) -> BTreeMap<String, String> {
    let agent = AgentEnvironment {
        ca_bundle: "/run/onecli/ca.pem".into(),
        placeholders: BTreeMap::from([("OPENAI_API_KEY".to_owned(), "onecli_ph_x".to_owned())]),
        own_view: false,
        proxy: proxy.map(str::to_owned),
    };
    let caller = caller.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let keep: Vec<OsString> = keep.iter().map(OsString::from).collect();
    environment(caller, &keep, &user(), &agent)
        .unwrap()
        .into_iter()
        .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
        .collect()
}

#[test]
fn only_allowed_variables_are_copied() {
    let check = |name: &str, keep: &[&str], expected: Option<&str>| {
        let env = plan(&[(name, "theirs")], keep, None);
        assert_eq!(env.get(name).map(String::as_str), expected, "{name}, keeping {keep:?}");
    };
    for name in ["TERM", "COLORTERM", "LANG", "LC_ALL", "LC_TIME", "TZ", "PATH"] {
        check(name, &[], Some("theirs"));
    }
    for name in
        ["AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "SUDO_USER", "NO_PROXY"]
    {
        check(name, &[], None);
        check(name, &[name], Some("theirs"));
        check(name, &["OTHER"], None);
    }
    // The daemon's values override those of the caller.
    check("OPENAI_API_KEY", &["OPENAI_API_KEY"], Some("onecli_ph_x"));
    check("SSL_CERT_FILE", &["SSL_CERT_FILE"], Some("/run/onecli/ca.pem"));
    check("SSL_CERT_DIR", &["SSL_CERT_DIR"], None);
    check("USER", &["USER"], Some("robot"));
    check("HOME", &[], Some("/srv/robot"));
    check("HOME", &["HOME"], Some("theirs"));
}

#[test]
fn the_agent_gets_its_user_bundle_and_placeholders() {
    let env = plan(&[], &[], None);
    let expected = [
        ("AWS_CA_BUNDLE", "/run/onecli/ca.pem"),
        ("CARGO_HTTP_CAINFO", "/run/onecli/ca.pem"),
        ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "/run/onecli/ca.pem"),
        ("CURL_CA_BUNDLE", "/run/onecli/ca.pem"),
        ("DENO_CERT", "/run/onecli/ca.pem"),
        ("GIT_SSL_CAINFO", "/run/onecli/ca.pem"),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "/run/onecli/ca.pem"),
        ("HOME", "/srv/robot"),
        ("LOGNAME", "robot"),
        ("NIX_SSL_CERT_FILE", "/run/onecli/ca.pem"),
        ("NODE_EXTRA_CA_CERTS", "/run/onecli/ca.pem"),
        ("OPENAI_API_KEY", "onecli_ph_x"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("PERL_LWP_SSL_CA_FILE", "/run/onecli/ca.pem"),
        ("PIP_CERT", "/run/onecli/ca.pem"),
        ("REQUESTS_CA_BUNDLE", "/run/onecli/ca.pem"),
        ("SHELL", "/bin/sh"),
        ("SSL_CERT_FILE", "/run/onecli/ca.pem"),
        ("USER", "robot"),
    ];
    let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, expected);
}

#[test]
fn proxy_variables_are_set_only_without_redirection() {
    let url = "http://x:onecli_st_y@127.0.0.1:10255";
    let env = plan(&[("NO_PROXY", "*"), ("no_proxy", "*")], &[], Some(url));
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        assert_eq!(env[name], url);
    }
    assert_eq!(env["NODE_USE_ENV_PROXY"], "1");
    assert!(!env.contains_key("NO_PROXY") && !env.contains_key("no_proxy"));
    assert!(!plan(&[], &[], None).keys().any(|name| name.to_ascii_uppercase().contains("PROXY")));
}

#[test]
fn names_to_keep_must_be_valid() {
    let agent = AgentEnvironment {
        ca_bundle: "/x".into(),
        placeholders: BTreeMap::new(),
        own_view: false,
        proxy: None,
    };
    for bad in ["", "A=B"] {
        let result = environment([], &[bad.into()], &user(), &agent);
        assert!(matches!(result, Err(LaunchError::EnvName(_))), "{bad:?}");
    }
}

#[test]
fn cgroup_paths_follow_the_mount_table() {
    let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    let nested = "30 23 0:26 /../outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                  31 30 0:26 /docker/x /sys/fs/cgroup/inner rw - cgroup2 cgroup2 rw\n";
    let check = |mountinfo: &str, directory: &str, expected: Option<&str>| {
        let path = cgroup::path_in_hierarchy(mountinfo, Path::new(directory));
        assert_eq!(path.as_deref(), expected.map(Path::new), "{directory}");
    };
    check(hybrid, "/sys/fs/cgroup/unified/a.slice/b", Some("/a.slice/b"));
    check(hybrid, "/sys/fs/cgroup/a.slice", None);
    check(hybrid, "/tmp", None);
    check(nested, "/sys/fs/cgroup/inner/b", Some("/docker/x/b"));

    assert_eq!(cgroup::unified_path("4:memory:/x\n0::/a.slice/b\n"), Some("/a.slice/b"));
    assert_eq!(cgroup::unified_path("4:memory:/x\n"), None);
}

#[test]
fn root_is_refused_as_agent_user() {
    assert!(matches!(LaunchUser::find("root"), Err(LaunchError::RootUser(_))));
    assert!(matches!(LaunchUser::find("0"), Err(LaunchError::RootUser(_))));
    assert!(matches!(LaunchUser::find("no-such-user-here"), Err(LaunchError::NoUser(_))));
    let nobody = LaunchUser::find("nobody").unwrap();
    assert_eq!(LaunchUser::find(&nobody.uid.to_string()).unwrap(), nobody);
}

/// A cgroup2 cgroup of this test, removed when dropped.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn new(test: &str) -> TestCgroup {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mountinfo
            .lines()
            .filter(|line| line.contains(" - cgroup2 "))
            .find_map(|line| line.split(' ').nth(4))
            .expect("a cgroup2 mount");
        let directory = Path::new(mount).join(format!("onecli-test-{test}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        TestCgroup(directory)
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // Its processes have ended, but may not be reaped yet.
        for _ in 0..100 {
            // The cgroups of commands.
            for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

const CGROUP: &str = "ONECLI_TEST_LAUNCH_CGROUP";
const COMMAND: &str = "ONECLI_TEST_LAUNCH_COMMAND";

/// Runs in a process that the tests below start; does nothing in an ordinary run.
#[test]
fn child_of_the_launch_tests() {
    let (Some(cgroup), Some(command)) = (std::env::var_os(CGROUP), std::env::var_os(COMMAND)) else { return };
    // A descriptor that would cross an exec, as one that a careless parent left open.
    let stray = nix::unistd::dup(std::io::stderr()).unwrap();
    let agent = AgentEnvironment {
        ca_bundle: "/ca.pem".into(),
        placeholders: BTreeMap::from([("API_KEY".to_owned(), "onecli_ph_x".to_owned())]),
        own_view: false,
        proxy: None,
    };
    let user = LaunchUser::find("nobody").unwrap();
    let env = environment(std::env::vars_os(), &[], &user, &agent).unwrap();
    let mut words = command.to_str().unwrap().splitn(3, ' ').map(OsString::from);
    let program = words.next().unwrap();
    let launch = Launch {
        caller: 0,
        user,
        cgroup: Some(cgroup.into()),
        env,
        program,
        args: words.collect(),
        view: None,
        directory: std::env::current_dir().unwrap(),
        directory_id: None,
    };
    let error = launch.exec(Vec::new(), &|| (), &mut |notice| println!("notice: {notice}")).unwrap_err();
    println!("{error}; code {}", error.exit_code());
    drop(stray);
}

/// Starts `command` as an agent (the shell's script is its third word) and returns its output.
fn run_as_agent(cgroup: &TestCgroup, command: &str, directory: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::child_of_the_launch_tests", "--nocapture"])
        .env(CGROUP, &cgroup.0)
        .env(COMMAND, command)
        .env("ANTHROPIC_API_KEY", "sk-the-real-one")
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn can_launch() -> bool {
    let can = nix::unistd::geteuid().is_root() && LaunchUser::find("nobody").is_ok();
    if !can {
        println!("not run: starting an agent (needs root and the user 'nobody')");
    }
    can
}

#[test]
fn an_agent_starts_with_no_privilege() {
    if !can_launch() {
        return;
    }
    let cgroup = TestCgroup::new("privileges");
    let script = "cat /proc/self/status /proc/self/cgroup; echo core $(ulimit -c); echo fds $(ls /proc/self/fd); \
                  perl -e 'my $x = \"x\"; ioctl(STDIN, 0x5412, $x) or print \"TIOCSTI: $!\\n\"; \
                  socket(my $s, 17, 3, 0) or print \"packet: $!\\n\"; \
                  socket(my $t, 2, 1, 0) and print \"inet: ok\\n\"'; \
                  env | sed 's/^/env /'";
    let seen = run_as_agent(&cgroup, &format!("sh -c {script}"), Path::new("/"));
    let nobody = LaunchUser::find("nobody").unwrap();
    let (uid, gid) = (nobody.uid, nobody.gid);
    let name = cgroup.0.file_name().unwrap().to_str().unwrap();
    for expected in [
        format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
        format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n"),
        format!("Groups:\t{gid} \n"),
        "CapInh:\t0000000000000000\n".to_owned(),
        "CapPrm:\t0000000000000000\n".to_owned(),
        "CapEff:\t0000000000000000\n".to_owned(),
        "CapBnd:\t0000000000000000\n".to_owned(),
        "CapAmb:\t0000000000000000\n".to_owned(),
        "NoNewPrivs:\t1\n".to_owned(),
        "Seccomp:\t2\n".to_owned(),
        format!("0::/{name}/run-"),
        "core 0\n".to_owned(),
        // The fourth is the descriptor of `ls` itself.
        "fds 0 1 2 3\n".to_owned(),
        "TIOCSTI: Operation not permitted\n".to_owned(),
        "packet: Address family not supported by protocol\n".to_owned(),
        "inet: ok\n".to_owned(),
        "env API_KEY=onecli_ph_x\n".to_owned(),
        "env SSL_CERT_FILE=/ca.pem\n".to_owned(),
        "env USER=nobody\n".to_owned(),
    ] {
        assert!(seen.contains(&expected), "{expected:?} is missing:\n{seen}");
    }
    assert!(!seen.contains("sk-the-real-one") && !seen.contains("ONECLI_TEST"), "{seen}");
}

#[test]
fn failed_starts_have_distinct_exit_codes() {
    if !can_launch() {
        return;
    }
    let cgroup = TestCgroup::new("commands");
    let check = |command: &str, expected: &str| {
        let seen = run_as_agent(&cgroup, command, Path::new("/"));
        assert!(seen.contains(expected), "{command}: {seen}");
    };
    check("no-such-command-here", "command not found in the agent's PATH; code 127");
    check("/etc/passwd", "cannot be executed as user 'nobody'");
    check("/etc/passwd", "code 126");
    check("/", "code 126");
    check("/no/such/command", "code 127");
}

#[test]
fn agent_starts_elsewhere_if_it_cannot_enter_the_directory() {
    if !can_launch() {
        return;
    }
    let cgroup = TestCgroup::new("directory");
    let private = tempfile::tempdir().unwrap();
    std::fs::set_permissions(private.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let seen = run_as_agent(&cgroup, "sh -c pwd", private.path());
    assert!(
        seen.contains("notice: user 'nobody' cannot enter the current directory; starting in /"),
        "{seen}"
    );
    assert!(!seen.contains(private.path().to_str().unwrap()), "{seen}");
}

#[test]
fn directory_outside_cgroup2_is_refused() {
    if !can_launch() {
        return;
    }
    let plain = tempfile::tempdir().unwrap();
    assert!(matches!(cgroup::enter(plain.path(), 0), Err(LaunchError::NotCgroup(_))));
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount =
        mountinfo.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let missing = Path::new(mount.unwrap()).join("onecli-no-such-cgroup");
    assert!(matches!(cgroup::enter(&missing, 0), Err(LaunchError::Cgroup { .. })));
}

/// A variable of `--keep-env`, or an argument, may contain a real key.
#[test]
fn debug_output_omits_arguments_and_environment() {
    const KEY: &str = "sk-live-hunter22";
    let variable = || (OsString::from("API_KEY"), OsString::from(KEY));
    let request = Request {
        agent: "coder".to_owned(),
        user: None,
        scope: false,
        program: "tool".into(),
        args: vec![format!("--key={KEY}").into()],
        env: vec![variable()],
        keep_env: vec!["API_KEY".into()],
        terminals: [false; 3],
        size: None,
        project: Project::Plain,
        shares: Vec::new(),
        umask: 0o22,
        git_configs: vec![],
        quiet: false,
        recipe: None,
    };
    let launch = Launch {
        caller: 0,
        user: user(),
        cgroup: None,
        env: vec![variable()],
        program: "tool".into(),
        args: request.args.clone(),
        view: None,
        directory: "/".into(),
        directory_id: None,
    };
    let environment = AgentEnvironment {
        ca_bundle: "/run/onecli/ca.pem".into(),
        placeholders: BTreeMap::from([("API_KEY".to_owned(), KEY.to_owned())]),
        own_view: false,
        proxy: Some(format!("http://x:{KEY}@127.0.0.1:10255")),
    };
    let panicked = onecli_tests::panicking::unwrap_text((&request, &launch));
    assert!(panicked.contains("coder"), "{panicked}");
    let permission = worker::Permission {
        agent: onecli_model::AgentId(uuid::Uuid::from_u128(1)),
        user: "robot".to_owned(),
        cgroup: None,
        environment: environment.clone(),
        hidden: Vec::new(),
        allow_git_config: false,
        notes: Vec::new(),
    };
    for shown in [format!("{request:?} {launch:?} {environment:?} {permission:?}"), panicked] {
        assert!(!shown.contains("hunter22"), "{shown}");
    }
}
