//! `cargo xtask deb`: the Debian package, by cargo-deb. What goes into it is listed in onecli-daemon/Cargo.toml.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, has, run, step, target, workspace};

const CARGO_DEB_VERSION: &str = "3.8.0";

/// Options of the command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Package a development build: made in a fraction of the time, slow and large
    #[arg(long)]
    pub(crate) debug: bool,
    /// Debian's part of the version, after the dash
    #[arg(long, default_value = "1", value_name = "N")]
    pub(crate) revision: String,
    /// Where the package goes, a directory
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// Makes the package; tells where it is.
pub(crate) fn package(args: &Args) -> Result<PathBuf> {
    if !has("dpkg-deb") || !has("dpkg-shlibdeps") {
        bail!("the package needs Debian's tools: sudo apt-get install dpkg-dev");
    }
    let cargo_deb = cargo_deb()?;
    let profile = if args.debug { "dev" } else { "release" };
    step(&format!("building onecli and onecli-daemon ({profile})"));
    let of_ours = ["--locked", "--package", "onecli-daemon"];
    run_cargo("build", &of_ours, &["--profile", profile, "--bins"])?;
    // The same build of the library, as far as the manual pages are concerned.
    run_cargo("build", &of_ours, &["--example", "man"])?;

    let built = target().join(if args.debug { "debug" } else { "release" });
    generate(&built, &target().join("debug/examples/man"))?;

    let output = args.output.clone().unwrap_or_else(|| target().join("debian"));
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    step("cargo-deb");
    let mut command = Command::new(cargo_deb);
    command.current_dir(workspace()).args(["--no-build", "--quiet", "--package", "onecli-daemon"]);
    command.args(["--profile", profile, "--deb-revision", &args.revision]).arg("--output").arg(&output);
    let told = command.output().context("cannot start cargo-deb")?;
    if !told.status.success() {
        bail!("cargo-deb failed: {}", String::from_utf8_lossy(&told.stderr).trim());
    }
    // Its last line is the file.
    let text = String::from_utf8_lossy(&told.stdout);
    let file = PathBuf::from(text.lines().last().unwrap_or_default());
    if !file.is_file() {
        bail!("cargo-deb does not say what it made: {text}");
    }
    println!("{}", file.display());
    Ok(file)
}

fn run_cargo(command: &str, of_ours: &[&str], options: &[&str]) -> Result<()> {
    run(cargo(&[command]).args(of_ours).args(options))
}

/// Manual pages and completion scripts, from the programs themselves.
fn generate(built: &Path, man: &Path) -> Result<()> {
    let parts = target().join("deb-parts");
    if parts.exists() {
        fs::remove_dir_all(&parts).with_context(|| format!("cannot remove {}", parts.display()))?;
    }
    run(Command::new(man).arg(parts.join("man")))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = parts.join(format!("onecli.{shell}"));
        let file = File::create(&script).with_context(|| format!("cannot write {}", script.display()))?;
        run(Command::new(built.join("onecli")).args(["completions", shell]).stdout(file))?;
    }
    Ok(())
}

/// cargo-deb in target/tools, built once per version.
fn cargo_deb() -> Result<PathBuf> {
    let tools = target().join("tools");
    let program = tools.join("bin/cargo-deb");
    let installed = Command::new(&program).arg("--version").output();
    let wanted = format!("cargo-deb {CARGO_DEB_VERSION}");
    if installed.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).trim() == wanted) {
        return Ok(program);
    }
    step(&format!("building {wanted} into target/tools (some minutes, once)"));
    let named = format!("cargo-deb@{CARGO_DEB_VERSION}");
    run(cargo(&["install", "--quiet", "--locked", "--root"]).arg(&tools).arg(named))?;
    Ok(program)
}
