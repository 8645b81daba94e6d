//! `cargo xtask deb`: builds the Debian package with cargo-deb. onecli-daemon/Cargo.toml lists its contents.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, cargo, has, step, target, workspace};

const CARGO_DEB_VERSION: &str = "3.8.0";

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Package a development build, which compiles in a fraction of the time but is slow and large
    #[arg(long)]
    debug: bool,
    /// Debian revision: the part of the version after the dash
    #[arg(long, default_value = "1", value_name = "N")]
    revision: String,
    /// Directory for the package
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Builds the package.
pub(crate) fn run(args: &Args) -> Result<()> {
    let output = args.output.clone().unwrap_or_else(|| target().join("debian"));
    build(args.debug)?;
    println!("{}", package(args.debug, &args.revision, &output)?.display());
    Ok(())
}

/// Compiles the contents of a package.
pub(crate) fn build(debug: bool) -> Result<()> {
    if !has("dpkg-deb") || !has("dpkg-shlibdeps") {
        bail!("the package needs Debian's tools: sudo apt-get install dpkg-dev");
    }
    let profile = profile(debug);
    step(&format!("building onecli and onecli-daemon ({profile})"));
    shell::build_programs(&["--locked", "--profile", profile])?;
    step("manual pages and completion scripts");
    generate(&target().join(if debug { "debug" } else { "release" }))
}

fn profile(debug: bool) -> &'static str {
    if debug { "dev" } else { "release" }
}

/// Packages the compiled files and returns the path of the package.
pub(crate) fn package(debug: bool, revision: &str, output: &Path) -> Result<PathBuf> {
    let cargo_deb = cargo_deb()?;
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    step(&format!("cargo-deb, revision {revision}"));
    let mut command = Command::new(cargo_deb);
    command.current_dir(workspace()).args(["--no-build", "--quiet", "--package", "onecli-daemon"]);
    command.args(["--profile", profile(debug), "--deb-revision", revision]).arg("--output").arg(output);
    if debug {
        command.arg("--fast");
    }
    let result = command.output().context("cannot start cargo-deb")?;
    if !result.status.success() {
        bail!("cargo-deb failed: {}", String::from_utf8_lossy(&result.stderr).trim());
    }
    // The last line of its output is the file.
    let text = String::from_utf8_lossy(&result.stdout);
    let file = PathBuf::from(text.lines().last().unwrap_or_default());
    if !file.is_file() {
        bail!("cargo-deb did not print the path of the package: {text}");
    }
    Ok(file)
}

/// Generates manual pages and completion scripts with the programs themselves.
fn generate(built: &Path) -> Result<()> {
    let parts = target().join("deb-parts");
    if parts.exists() {
        fs::remove_dir_all(&parts).with_context(|| format!("cannot remove {}", parts.display()))?;
    }
    let onecli = built.join("onecli");
    shell::run(Command::new(&onecli).arg("manual").arg(parts.join("man")))?;
    let daemon = built.join("onecli-daemon");
    shell::run(Command::new(daemon).arg("--manual").arg(parts.join("man/onecli-daemon.8")))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = parts.join(format!("onecli.{shell}"));
        let file = File::create(&script).with_context(|| format!("cannot write {}", script.display()))?;
        shell::run(Command::new(&onecli).args(["completions", shell]).stdout(file))?;
    }
    Ok(())
}

/// The cargo-deb in target/tools, built once per version.
fn cargo_deb() -> Result<PathBuf> {
    let tools = target().join("tools");
    let program = tools.join("bin/cargo-deb");
    let installed = Command::new(&program).arg("--version").output();
    let wanted = format!("cargo-deb {CARGO_DEB_VERSION}");
    if installed.is_ok_and(|result| String::from_utf8_lossy(&result.stdout).trim() == wanted) {
        return Ok(program);
    }
    step(&format!("building {wanted} into target/tools (some minutes, once)"));
    let named = format!("cargo-deb@{CARGO_DEB_VERSION}");
    shell::run(cargo(&["install", "--quiet", "--locked", "--root"]).arg(&tools).arg(named))?;
    Ok(program)
}
