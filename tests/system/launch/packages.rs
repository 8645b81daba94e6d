//! Package managers install a dependency from a registry that requires a credential, and the project uses it.

use std::path::PathBuf;
use std::time::Duration;

use data_encoding::BASE64;
use data_encoding::HEXLOWER;
use onecli_tests::client::Outcome;
use onecli_tests::need;
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha512};

use super::people;
use super::site::{Site, tar, wheel};
use super::{PERSON, Stage, python};
use crate::scene::{Scene, VALUE};

/// The result that each package computes.
const ANSWER: &str = "42\n";
/// Sets a writable home for the package manager. The project is the working directory of the run.
const HOME: &str = "set -e; export HOME=$XDG_RUNTIME_DIR; ";

/// The directory with `bin/cargo` of the toolchain that runs this test.
pub(super) fn toolchain() -> Option<PathBuf> {
    let cargo = PathBuf::from(std::env::var_os("CARGO")?);
    let root = cargo.parent()?.parent()?.to_owned();
    root.join("bin/rustc").is_file().then_some(root)
}

/// Its path inside an agent, because it may be in a home directory.
pub(super) fn toolchain_inside(scene: &Scene) -> PathBuf {
    scene.daemon.home().dir().join("toolchain")
}

impl Site {
    /// Runs `script` in a project with these files, which the agent may write.
    fn in_project(&self, files: &[(&str, &str)], script: &str, args: &[&str]) -> Outcome {
        let project = self.stage.scene.daemon.home().dir().join("project");
        people::dir(&project, PERSON_ID);
        for (path, text) in files {
            let path = project.join(path);
            people::dir(path.parent().unwrap(), PERSON_ID);
            people::file(&path, text, PERSON_ID);
        }
        let script = format!("{HOME}{script}");
        let command = [&["sh", "-c", &script, "sh"], args].concat();
        let run = self.stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &command);
        run.timeout(Duration::from_mins(3)).outcome()
    }

    /// Checks that the registry served these paths to the program, and that the result is right.
    fn served_answer(&self, what: &str, outcome: &Outcome, paths: &[&str]) {
        assert!(outcome.ok(what).ends_with(ANSWER), "{outcome:?}");
        let served = self.served();
        assert!(paths.iter().all(|path| served.iter().any(|got| got == path)), "{served:?}: {outcome:?}");
        let _ = self.stage.scene.daemon.audit_until("the credential", |record| {
            record["verdict"] == "inject"
                && record["agent"] == "robot"
                && record["host"] == self.upstream.name()
        });
    }
}

/// The uid of [`PERSON`].
const PERSON_ID: u32 = 2;

#[test]
fn slow_cargo_builds_a_crate_with_a_dependency() {
    let here = Stage::is_possible() && need::program("cargo", "cc", "gcc");
    if !here
        || need::fixture("cargo", toolchain().ok_or_else(|| "cargo has no rustc in its directory".to_owned()))
            .is_none()
    {
        return;
    }
    let package = tar(&[
        (
            "answer-1.0.0/Cargo.toml",
            "[package]\nname = \"answer\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
        ),
        ("answer-1.0.0/src/lib.rs", "pub fn answer() -> u32 { 6 * 7 }\n"),
    ]);
    let index = json!({
        "name": "answer", "vers": "1.0.0", "deps": [], "features": {}, "yanked": false,
        "cksum": HEXLOWER.encode(&Sha256::digest(&package)),
    });
    let site = Site::start(format!("Bearer {VALUE}"), &["--bearer"], move |authority, path| match path {
        "/index/config.json" => {
            let config = json!({ "dl": format!("https://{authority}/crates"), "auth-required": true });
            Some(config.to_string().into_bytes())
        }
        "/index/an/sw/answer" => Some(index.to_string().into_bytes()),
        "/crates/answer/1.0.0/download" => Some(package.clone()),
        _ => None,
    });
    let config = format!(
        "[registries.site]\nindex = \"sparse+{}\"\n[registry]\nglobal-credential-providers = [\"cargo:token\"]\n",
        site.upstream.url("/index/")
    );
    let manifest = "[package]\nname = \"question\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
                    [dependencies]\nanswer = { version = \"1\", registry = \"site\" }\n";
    let files = [
        ("Cargo.toml", manifest),
        ("src/main.rs", "fn main() { println!(\"{}\", answer::answer()); }\n"),
        (".cargo/config.toml", config.as_str()),
    ];
    let script = r#"
        export PATH="$1/bin:$PATH" CARGO_HOME="$HOME/cargo" CARGO_REGISTRIES_SITE_TOKEN="Bearer $SITE_KEY"
        cargo build --quiet && exec target/debug/question"#;
    let toolchain = toolchain_inside(&site.stage.scene);
    let outcome = site.in_project(&files, script, &[toolchain.to_str().unwrap()]);
    let paths = ["/index/config.json", "/index/an/sw/answer", "/crates/answer/1.0.0/download"];
    site.served_answer("cargo", &outcome, &paths);
}

#[test]
fn slow_npm_installs_a_package() {
    let here =
        Stage::is_possible() && need::program("npm", "npm", "npm") && need::program("npm", "node", "nodejs");
    if !here {
        return;
    }
    let package = tar(&[
        ("package/package.json", r#"{ "name": "answer", "version": "1.0.0" }"#),
        ("package/index.js", "module.exports = 6 * 7;\n"),
    ]);
    let integrity = format!("sha512-{}", BASE64.encode(&Sha512::digest(&package)));
    let site = Site::start(format!("Bearer {VALUE}"), &["--bearer"], move |authority, path| match path {
        "/npm/answer" => {
            let tarball = format!("https://{authority}/npm/answer/-/answer-1.0.0.tgz");
            let dist = json!({ "tarball": tarball, "integrity": integrity });
            let version = json!({ "name": "answer", "version": "1.0.0", "dist": dist });
            let all = json!({ "name": "answer", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } });
            Some(all.to_string().into_bytes())
        }
        "/npm/answer/-/answer-1.0.0.tgz" => Some(package.clone()),
        _ => None,
    });
    let registry = site.upstream.url("/npm/");
    let npmrc = format!(
        "registry={registry}\n{}:_authToken=${{SITE_KEY}}\nupdate-notifier=false\n",
        registry.trim_start_matches("https:")
    );
    let files = [("package.json", r#"{ "name": "question", "private": true }"#), (".npmrc", npmrc.as_str())];
    let script = "npm install --no-audit --no-fund answer && exec node -p \"require('answer')\"";
    let outcome = site.in_project(&files, script, &[]);
    site.served_answer("npm", &outcome, &["/npm/answer", "/npm/answer/-/answer-1.0.0.tgz"]);
}

#[test]
fn slow_pip_installs_a_package() {
    if !Stage::is_possible() || !need::python("pip") {
        return;
    }
    let package = wheel("answer", "ANSWER = 6 * 7\n");
    let basic = BASE64.encode(format!("deploy:{VALUE}").as_bytes());
    let site = Site::start(format!("Basic {basic}"), &["--basic", "deploy"], move |_, path| match path {
        "/simple/answer/" => {
            let link = r#"<!DOCTYPE html><a href="../../files/answer-1.0.0-py3-none-any.whl">answer-1.0.0-py3-none-any.whl</a>"#;
            Some(link.into())
        }
        "/files/answer-1.0.0-py3-none-any.whl" => Some(package.clone()),
        _ => None,
    });
    let script = r#"
        printf 'machine %s login deploy password %s\n' site.test "$SITE_KEY" > "$HOME/.netrc"
        "$1" -m pip --disable-pip-version-check install --quiet --target lib --index-url "$2" answer
        PYTHONPATH=lib exec "$1" -c 'import answer; print(answer.ANSWER)'"#;
    let python = python(&site.stage.scene).expect("the toolchain exists");
    let outcome = site.in_project(&[], script, &[python.to_str().unwrap(), &site.upstream.url("/simple/")]);
    site.served_answer("pip", &outcome, &["/simple/answer/", "/files/answer-1.0.0-py3-none-any.whl"]);
}
