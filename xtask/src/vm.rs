//! `cargo xtask vm`: tests the package on a stock Debian with systemd as process 1, in qemu's emulator. With `--tests`
//! it runs the kernel tests and the escape suite instead: this kernel runs programs of the BPF LSM, which not every
//! developer's kernel does.
//!
//! The disk is created once and never written to: each run uses a snapshot. xtask/vm/guest.py runs inside. It is on a
//! second disk together with two versions of the package.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::deb;
use crate::shell::{build_programs, cargo, has, run, step, target, workspace};

const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,kmod,linux-image-cloud-amd64,iproute2,curl,python3,nodejs,\
                        openssl,ca-certificates,procps,man-db,init-system-helpers";
/// The programs that a run needs, and their Debian packages.
const NEEDS: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("mke2fs", "e2fsprogs"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("unshare", "util-linux"),
];
/// The unit that starts the test inside the machine.
const UNIT: &str = "\
[Unit]
Description=Test of the package
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /payload && mount -o ro /dev/vdb /payload && . /payload/environment && exec /usr/bin/python3 /payload/guest.py'
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity
";

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Debian release: bookworm or trixie
    #[arg(long, default_value = "bookworm")]
    suite: String,
    /// Test a release build instead of a development build
    #[arg(long)]
    release: bool,
    /// Run tests of this repository in the machine instead of the package test: those named, or the kernel tests and
    /// the escape suite
    #[arg(long, value_name = "NAMES", num_args = 0..=1, default_missing_value = "kernel:: escape:: netns::")]
    tests: Option<String>,
    /// Time limit for the machine, in minutes
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Debian root file system to start from, instead of one from debootstrap
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Seconds within which a killed daemon must be back, by the machine's clock: emulated processors are some 20 times
    /// slower than real ones
    #[arg(long, default_value = "20", value_name = "S")]
    back_within: String,
}

#[expect(clippy::disallowed_methods, reason = "progress is reported in real seconds")]
pub(crate) fn test(args: &Args) -> Result<()> {
    let started = Instant::now();
    crate::setup::packages(NEEDS)?;
    let place = target().join("vm").join(&args.suite);
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;

    let system = Disk::of(&place, args)?;
    let payload = match &args.tests {
        Some(names) => tests(&place, names)?,
        None => payload(&place, args)?,
    };
    step(&format!("booting ({} s so far)", started.elapsed().as_secs()));
    let results = place.join("results.txt");
    File::create(&results)?;
    let mut machine = Machine::boot(&place, &system, &payload, &results)?;
    let followed = machine.follow(&results, Duration::from_mins(args.minutes));
    drop(machine);
    let lines = followed?;

    let failed = lines.iter().filter(|line| line.starts_with("FAIL")).count();
    let passed = lines.iter().filter(|line| line.starts_with("PASS")).count();
    println!("\n{:<6} check", "result");
    for line in lines.iter().filter(|line| line.contains('\t')) {
        let mut words = line.splitn(3, '\t');
        println!("{:<6} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
    }
    println!("\n{passed} passed, {failed} failed, in {} s; {}", started.elapsed().as_secs(), place.display());
    ensure!(
        lines.iter().any(|line| line == "DONE"),
        "the machine ended before the test did: see console.log"
    );
    ensure!(failed == 0, "{failed} checks failed: see console.log");
    Ok(())
}

/// A stock Debian.
struct Disk {
    image: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Disk {
    /// Creates the disk once.
    fn of(place: &Path, args: &Args) -> Result<Disk> {
        let disk = Disk {
            image: place.join("system.ext4"),
            kernel: place.join("vmlinuz"),
            initrd: place.join("initrd.img"),
        };
        let stamp = place.join("system.stamp");
        let wanted = format!("{PACKAGES}\n{UNIT}");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && disk.image.exists() {
            return Ok(disk);
        }
        let own = place.join("rootfs");
        let root = args.rootfs.as_deref().unwrap_or(&own);
        if args.rootfs.is_none() {
            step(&format!("installing Debian {} with debootstrap (a minute or two, once)", args.suite));
            if own.exists() {
                fs::remove_dir_all(&own)?;
            }
            let include = format!("--include={PACKAGES}");
            // A private mount namespace: debootstrap may leave /proc mounted, and mke2fs would copy it.
            let mut command = Command::new("unshare");
            command.args(["--mount", "debootstrap", "--variant=minbase", &include, &args.suite]);
            command.arg(&own).args(mirror());
            run(command.stdout(File::create(place.join("debootstrap.log"))?))?;
        }
        step("writing the disk");
        fs::write(root.join("etc/systemd/system/vm-test.service"), UNIT)?;
        let wants = root.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        let link = wants.join("vm-test.service");
        if !link.is_symlink() {
            std::os::unix::fs::symlink("../vm-test.service", link)?;
        }
        fs::write(root.join("etc/hostname"), "onecli-vm\n")?;
        fs::copy(root.join("vmlinuz"), &disk.kernel)?;
        fs::copy(root.join("initrd.img"), &disk.initrd)?;
        make_disk(root, &disk.image, "3G")?;
        if args.rootfs.is_none() {
            fs::remove_dir_all(&own)?;
        }
        fs::write(stamp, wanted)?;
        Ok(disk)
    }
}

/// The mirror that this machine uses; if it is unknown, debootstrap's default applies.
fn mirror() -> Option<String> {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let found = sources.lines().find_map(|line| line.strip_prefix("URIs: "));
    found.map(|uri| uri.trim().to_owned())
}

/// Both versions of the package, and the program that runs inside.
fn payload(place: &Path, args: &Args) -> Result<PathBuf> {
    let directory = empty(place, "payload")?;
    deb::build(!args.release)?;
    for revision in ["1", "2"] {
        deb::package(!args.release, revision, &directory)?;
    }
    for entry in fs::read_dir(workspace().join("xtask/vm"))? {
        let entry = entry?;
        fs::copy(entry.path(), directory.join(entry.file_name()))?;
    }
    fs::write(directory.join("environment"), format!("export BACK_WITHIN={}\n", args.back_within))?;
    let image = place.join("payload.ext4");
    make_disk(&directory, &image, "300M")?;
    Ok(image)
}

/// Test programs, the programs that they run, and the script that starts them inside.
fn tests(place: &Path, names: &str) -> Result<PathBuf> {
    let directory = empty(place, "tests")?;
    build_programs(&[])?;
    for (package, wanted, name) in
        [("onecli-sys", "--lib", "kernel-tests"), ("onecli-tests", "--test=system", "system-tests")]
    {
        let mut build = cargo(&["test", "--no-run", "--package", package, wanted, "--message-format=json"]);
        let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        let messages = String::from_utf8(output.stdout)?;
        // Programs that the tests use are built with them.
        let mut programs =
            messages.lines().filter(|line| line.contains("\"overflow_checks\":true,\"test\":true}"));
        let executable = programs.find_map(|line| line.split("\"executable\":\"").nth(1));
        let executable = executable.and_then(|rest| rest.split('"').next());
        let executable = executable.with_context(|| format!("{package} was not built"))?;
        // Debug information is most of their size.
        run(Command::new("strip").args(["--strip-debug", executable, "-o"]).arg(directory.join(name)))?;
    }
    for name in ["onecli", "onecli-daemon"] {
        let program = target().join("debug").join(name);
        run(Command::new("strip").arg("--strip-debug").arg(program).arg("-o").arg(directory.join(name)))?;
    }
    fs::copy(workspace().join("xtask/vm/tests.py"), directory.join("guest.py"))?;
    fs::write(directory.join("environment"), format!("export NAMES='{names}'\n"))?;
    let image = place.join("tests.ext4");
    make_disk(&directory, &image, "1G")?;
    Ok(image)
}

/// A new directory.
fn empty(place: &Path, name: &str) -> Result<PathBuf> {
    let directory = place.join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn make_disk(from: &Path, image: &Path, size: &str) -> Result<()> {
    if image.exists() {
        fs::remove_file(image)?;
    }
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(from).arg(image).arg(size))
}

/// A running machine. Drop ends it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    fn boot(place: &Path, system: &Disk, payload: &Path, results: &Path) -> Result<Machine> {
        let drive =
            |file: &Path, options: &str| format!("file={},format=raw,if=virtio,{options}", file.display());
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"])
            .args(["-display", "none", "-nic", "none", "-no-user-config"])
            .arg("-kernel")
            .arg(&system.kernel)
            .arg("-initrd")
            .arg(&system.initrd)
            .args(["-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.show_status=no"])
            .args(["-drive", &drive(&system.image, "snapshot=on,werror=report")])
            .args(["-drive", &drive(payload, "readonly=on")])
            .args(["-serial", &format!("file:{}", place.join("console.log").display())])
            .args(["-serial", &format!("file:{}", results.display())])
            // The directory of the snapshot's data.
            .env("TMPDIR", place)
            .stdin(Stdio::null());
        ensure!(has("qemu-system-x86_64"), "qemu-system-x86_64 is not installed");
        Ok(Machine(command.spawn().context("cannot start qemu-system-x86_64")?))
    }

    /// Prints results as they arrive, until the machine stops.
    #[expect(clippy::disallowed_methods, reason = "bounded in real time")]
    fn follow(&mut self, results: &Path, limit: Duration) -> Result<Vec<String>> {
        let started = Instant::now();
        let mut shown = 0;
        loop {
            let ended = self.0.try_wait()?.is_some();
            let mut text = String::new();
            File::open(results)?.read_to_string(&mut text).context("the results are not text")?;
            let lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
            let whole = if text.ends_with('\n') { lines.len() } else { lines.len().saturating_sub(1) };
            for line in &lines[shown..whole] {
                println!("[{:>4} s] {}", started.elapsed().as_secs(), line.replace('\t', "  "));
            }
            shown = whole;
            if ended {
                return Ok(lines);
            }
            if started.elapsed() > limit {
                bail!("the machine did not stop within {} minutes: see console.log", limit.as_secs() / 60);
            }
            sleep(Duration::from_millis(500));
        }
    }
}
