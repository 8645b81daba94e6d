//! `cargo xtask ebpf`: builds the kernel programs into the object that the daemon embeds.
//!
//! The object is committed, so building OneCLI needs none of these tools. It is reproducible: the same compiler, linker
//! and lock file give the same bytes in any directory. `--verify` checks that for the committed object.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};

/// The compiler of the committed object. Another compiler produces other bytes.
const RUSTC: &str = "1.95.0";
const BPF_LINKER: &str = "0.10.3";
const TARGET: &str = "bpfel-unknown-none";

/// Arguments of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub(crate) struct EbpfArgs {
    /// Change nothing; fail if the committed object is not byte-identical to a fresh build
    #[arg(long)]
    verify: bool,
    /// Build nothing; check the formatting and style of the kernel programs
    #[arg(long, conflicts_with = "verify")]
    lint: bool,
    /// Use the sources of `core` from Debian's rust-src package even if the toolchain has its own
    #[arg(long)]
    debian_rust_src: bool,
}

/// Builds the object and stores it, or compares it with the committed one.
pub(crate) fn run(args: &EbpfArgs) -> Result<()> {
    let EbpfArgs { verify, lint: lint_only, debian_rust_src } = *args;
    let root = repository()?;
    let toolchain = Toolchain::find(&root, debian_rust_src)?;
    let linker_dir = bpf_linker(&root)?;
    if lint_only {
        return lint(&root, &toolchain, &linker_dir);
    }
    let built = strip(&compile(&root, &toolchain, &linker_dir)?)?;
    let object = root.join("onecli-ebpf/onecli-ebpf.o");
    let mut out = std::io::stdout();
    if verify {
        let committed = fs::read(&object)
            .with_context(|| format!("{} cannot be read: run `cargo xtask ebpf`", object.display()))?;
        ensure!(
            committed == built,
            "{} differs from a build of its sources ({} bytes committed, {} built): run `cargo xtask ebpf` and commit it",
            object.display(),
            committed.len(),
            built.len()
        );
        writeln!(out, "{} is byte-identical to a fresh build", object.display())?;
    } else {
        fs::write(&object, &built).with_context(|| format!("writing {}", object.display()))?;
        writeln!(out, "{}: {} bytes", object.display(), built.len())?;
    }
    Ok(())
}

/// The root of this checkout.
fn repository() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: run this as `cargo xtask ebpf`")?;
    let root = Path::new(&manifest).parent().context("the xtask crate has no parent directory")?;
    fs::canonicalize(root).with_context(|| format!("resolving {}", root.display()))
}

/// The compiler, and the location of the sources of `core`.
struct Toolchain {
    /// The program run as `rustc`: the compiler itself, or a wrapper that selects a sysroot with sources.
    rustc: PathBuf,
    sysroot: PathBuf,
    /// The directory of `liblibLLVM`, which bpf-linker loads.
    llvm: PathBuf,
}

impl Toolchain {
    fn find(root: &Path, debian: bool) -> Result<Self> {
        let rustc = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let version = capture(Command::new(&rustc).arg("-vV"), "install Rust with rustup")?;
        ensure!(
            version.lines().any(|line| line == format!("release: {RUSTC}")),
            "the kernel programs are built with rustc {RUSTC}, and this is {}: \
             run `rustup toolchain install {RUSTC} && cargo +{RUSTC} xtask ebpf`",
            version.lines().next().unwrap_or("unknown")
        );
        let sysroot = PathBuf::from(
            capture(Command::new(&rustc).args(["--print", "sysroot"]), "reinstall Rust")?.trim(),
        );
        let llvm = sysroot.join("lib");
        if debian {
            return Self::with_debian_sources(root, &rustc, &sysroot);
        }
        if !has_sources(&sysroot) {
            // A failure here is not final: rustup may be missing or offline.
            let added = Command::new("rustup")
                .args(["component", "add", "rust-src"])
                .status()
                .is_ok_and(|status| status.success());
            if !added || !has_sources(&sysroot) {
                return Self::with_debian_sources(root, &rustc, &sysroot);
            }
        }
        Ok(Self { rustc, sysroot, llvm })
    }

    /// A sysroot of links to that of the toolchain, with the sources from Debian's package of the same version. The
    /// toolchain itself is not changed.
    fn with_debian_sources(root: &Path, rustc: &Path, original: &Path) -> Result<Self> {
        let sources = debian_sources(&root.join("target/tools/rust-src"))?;
        let sysroot = root.join("target/tools/sysroot");
        if sysroot.exists() {
            fs::remove_dir_all(&sysroot)?;
        }
        let rustlib = sysroot.join("lib/rustlib");
        fs::create_dir_all(rustlib.join("src"))?;
        for entry in fs::read_dir(original.join("lib/rustlib"))? {
            let entry = entry?;
            if entry.file_name() != "src" {
                symlink(entry.path(), rustlib.join(entry.file_name()))?;
            }
        }
        symlink(&sources, rustlib.join("src/rust"))?;
        // cargo finds the sources through `rustc --print sysroot`, and has no setting to override the result.
        let wrapper = sysroot.join("rustc");
        let real =
            if rustc.components().count() == 1 { original.join("bin/rustc") } else { rustc.to_owned() };
        fs::write(
            &wrapper,
            format!("#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n", real.display(), sysroot.display()),
        )?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        Ok(Self { rustc: wrapper, sysroot, llvm: original.join("lib") })
    }
}

/// Returns whether a sysroot contains the sources that `-Z build-std` compiles.
fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// The source tree of Debian's rust-src package, unpacked below `dir`.
fn debian_sources(dir: &Path) -> Result<PathBuf> {
    const FIX: &str = "the sources of Rust's core library are missing: run `rustup component add rust-src`";
    let sources = dir.join(format!("root/usr/src/rustc-{RUSTC}"));
    if sources.join("library/core/Cargo.toml").is_file() {
        return Ok(sources);
    }
    for part in ["lists/partial", "archives/partial", "root"] {
        fs::create_dir_all(dir.join(part))?;
    }
    fs::write(dir.join("debian.sources"), apt_source(FIX)?)?;
    let settings = [
        format!("Dir::Etc::sourcelist={}", dir.join("debian.sources").display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::Lists={}", dir.join("lists").display()),
        format!("Dir::Cache={}", dir.display()),
    ];
    let apt = || {
        let mut command = Command::new("apt-get");
        command.current_dir(dir).arg("-qq");
        for setting in &settings {
            command.args(["-o", setting]);
        }
        command
    };
    succeed(apt().arg("update"), FIX)?;
    succeed(apt().args(["download", &format!("rust-src={RUSTC}*")]), FIX)?;
    let package = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .with_context(|| format!("apt-get downloaded no package to {}: {FIX}", dir.display()))?;
    succeed(Command::new("dpkg").arg("-x").arg(&package).arg(dir.join("root")), FIX)?;
    fs::remove_file(&package)?;
    ensure!(
        sources.join("library/core/Cargo.toml").is_file(),
        "{} is not in Debian's rust-src package: {FIX}",
        sources.display()
    );
    Ok(sources)
}

/// A source entry for the suite that contains rustc's sources, on the mirror that this machine uses for Debian.
fn apt_source(fix: &str) -> Result<String> {
    let targets = capture(
        Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]),
        fix,
    )?;
    let mirror = targets
        .lines()
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
        .with_context(|| format!("no Debian mirror among this machine's package sources: {fix}"))?;
    Ok(format!(
        "Types: deb\nURIs: {mirror}\nSuites: trixie-backports\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    ))
}

/// The directory of bpf-linker. Installs bpf-linker there if it is missing.
fn bpf_linker(root: &Path) -> Result<PathBuf> {
    let tools = root.join("target/tools");
    let bin = tools.join("bin");
    let wanted = format!("bpf-linker {BPF_LINKER}");
    let present = Command::new(bin.join("bpf-linker"))
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == wanted);
    if !present {
        // The default features use the LLVM in the toolchain of the rustc that runs it.
        succeed(
            Command::new("cargo")
                .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
                .arg("--root")
                .arg(&tools)
                .env("CARGO_TARGET_DIR", tools.join("build")),
            &format!(
                "install it manually: `cargo install bpf-linker --version {BPF_LINKER} --locked --root {}`",
                tools.display()
            ),
        )?;
    }
    Ok(bin)
}

/// Compiles the programs and returns the linked object, as bpf-linker wrote it.
fn compile(root: &Path, toolchain: &Toolchain, linker_dir: &Path) -> Result<Vec<u8>> {
    let target_dir = root.join("target/ebpf");
    succeed(
        cargo(root, toolchain, linker_dir)?.args(["build", "--target-dir"]).arg(&target_dir).args(FLAGS),
        "see the compiler's messages above; after a change of dependencies run `cargo update -w` in onecli-ebpf",
    )?;
    let object = target_dir.join(TARGET).join("release/onecli-ebpf");
    fs::read(&object).with_context(|| format!("reading {}", object.display()))
}

/// Checks the programs' formatting, and their style for their target.
fn lint(root: &Path, toolchain: &Toolchain, linker_dir: &Path) -> Result<()> {
    succeed(
        cargo(root, toolchain, linker_dir)?.args(["fmt", "--check"]),
        "run `cargo fmt` in onecli-ebpf, then `cargo xtask ebpf`",
    )?;
    succeed(
        // A separate directory, because clippy's artifacts have other fingerprints.
        cargo(root, toolchain, linker_dir)?
            .args(["clippy", "--target-dir"])
            .arg(root.join("target/ebpf-lint"))
            .args(FLAGS)
            .args(["--", "-Dwarnings"]),
        "see clippy's messages above",
    )
}

/// Flags of cargo for this target, which has no prebuilt `core`.
const FLAGS: [&str; 5] = ["--release", "--locked", "-Zbuild-std=core", "--target", TARGET];

/// A cargo command in onecli-ebpf, with an environment that makes the build reproducible.
fn cargo(root: &Path, toolchain: &Toolchain, linker_dir: &Path) -> Result<Command> {
    let mut path = vec![linker_dir.to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new("cargo");
    for (name, _) in env::vars_os() {
        if is_foreign_setting(&name) {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(root.join("onecli-ebpf"))
        .env("RUSTC", &toolchain.rustc)
        // Enables `-Z build-std` on the stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", env::join_paths(path)?)
        .env("LD_LIBRARY_PATH", &toolchain.llvm)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?);
    Ok(command)
}

/// Returns whether an environment variable changes the code that rustc generates. `RUSTUP_TOOLCHAIN` is not such a
/// variable: it selected the compiler, whose version has been checked.
fn is_foreign_setting(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PROFILE_")
        || name.starts_with("CARGO_BUILD_")
        || name.starts_with("CARGO_TARGET_")
        || ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"].contains(&name.as_ref())
}

/// Flags for the kernel's crates, in cargo's encoding. They replace every path that could differ between two machines.
/// The last match wins in rustc, so paths that may be inside the checkout come after the checkout.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<OsString> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().context("neither CARGO_HOME nor HOME is set: set one")?.join(".cargo"),
    };
    let sources = toolchain.sysroot.join("lib/rustlib/src/rust");
    // The path of the sources may be a link, which cargo resolves for some uses.
    let resolved = fs::canonicalize(&sources).with_context(|| format!("resolving {}", sources.display()))?;
    let mut remaps = Vec::new();
    let registry = cargo_home.join("registry/src");
    // The name of the directory below contains the name of the registry.
    for index in fs::read_dir(&registry).with_context(|| format!("listing {}", registry.display()))? {
        remaps.push((index?.path(), "/cargo"));
    }
    remaps.push((root.to_owned(), "/onecli"));
    remaps.push((sources, "/rustc"));
    remaps.push((resolved, "/rustc"));
    let mut flags = OsString::from("--cfg=bpf_target_arch=\"x86_64\"\u{1f}-Clink-arg=--btf");
    for (from, to) in remaps {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// Removes DWARF and preserves BTF, from which the kernel and the loader read maps, functions and line information.
fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("reading the linked object")?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
    }
    // Mangled names contain a hash of onecli-common's path. Only local functions have such names, and no code refers to
    // them.
    let mut subprograms = 0;
    for symbol in &mut builder.symbols {
        if symbol.st_bind() == object::elf::STB_LOCAL && symbol.st_type() == object::elf::STT_FUNC {
            symbol.name = format!("subprogram_{subprograms}").into_bytes().into();
            subprograms += 1;
        }
    }
    // LLVM stores the names of sections and symbols in one table; the writer needs two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("writing the stripped object")?;
    Ok(stripped)
}

/// Runs a command whose output is for the user. The error contains `fix`.
fn succeed(command: &mut Command, fix: &str) -> Result<()> {
    let status =
        command.status().with_context(|| format!("starting {}: {fix}", command.get_program().display()))?;
    if !status.success() {
        bail!("{} failed ({status}): {fix}", command.get_program().display());
    }
    Ok(())
}

/// Runs a command and returns its output.
fn capture(command: &mut Command, fix: &str) -> Result<String> {
    let output =
        command.output().with_context(|| format!("starting {}: {fix}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{} failed ({}): {}: {fix}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).context("output that is not UTF-8")
}
