//! What each program links, by `cargo tree`.

use std::collections::BTreeSet;
use std::process::Command;

use crate::shell::workspace;

/// Packages that a package links, itself included.
fn linked(package: &str) -> BTreeSet<String> {
    let output = Command::new("cargo")
        .current_dir(workspace())
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", package])
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The command reads no database, resolves no names for agents, opens no vault and serves no requests: the daemon does.
#[test]
fn command_links_no_database_resolver_proxy_or_vault() {
    let cli = linked("onecli-cli");
    assert!(cli.contains("onecli-cli") && cli.contains("clap"), "{cli:?}");
    for package in [
        "onecli-proxy",
        "onecli-vault",
        "onecli-store",
        "onecli-dns",
        "onecli-admin",
        "axum",
        "tower",
        "utoipa",
    ] {
        assert!(!cli.contains(package), "{package}");
    }
    let foreign = cli.iter().filter(|name| name.starts_with("sqlx") || name.starts_with("hickory"));
    assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&String>::new());
    let daemon = linked("onecli-daemon");
    assert!(
        ["sqlx", "hickory-resolver", "onecli-vault", "axum"].iter().all(|name| daemon.contains(*name)),
        "{daemon:?}"
    );
}

/// Terms are types without I/O.
#[test]
fn model_links_no_runtime_and_no_crate_of_ours() {
    let model = linked("onecli-model");
    let ours: Vec<_> = model.iter().filter(|name| name.starts_with("onecli-")).collect();
    assert_eq!(ours, ["onecli-model"]);
    for package in ["tokio", "nix", "rustls"] {
        assert!(!model.contains(package), "{package}");
    }
}
