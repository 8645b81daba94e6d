//! Many kinds of clients trust the certificate authority with only the settings of `onecli run`.

use std::path::PathBuf;
use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::need;

use super::{Stage, python};
use crate::scene::{API, VALUE};

impl Stage {
    /// Runs a client that makes one request with the key from its environment.
    fn client(&self, what: &str, run: Run) -> String {
        let out = run.timeout(Duration::from_mins(2)).outcome().ok(what);
        let seen = self.scene.upstream.requests();
        self.scene.upstream.clear();
        let injected: usize = seen.iter().map(|request| request.count(VALUE)).sum();
        assert!(injected >= 1, "{what}: {seen:#?}\n{out}");
        out
    }
}

/// For programs that need a writable home.
const HOME: &str = "cd $XDG_RUNTIME_DIR && export HOME=$PWD && ";

/// With the usual variables, and without any: then they use the system's bundle, which the agent's view replaces.
#[test]
fn system_programs_trust_the_authority() {
    let Some(stage) = Stage::new() else { return };
    let url = stage.scene.url("/echo");
    let port = stage.scene.upstream.https_addr().port();
    let bare = r#"exec env -i PATH="$PATH" API_KEY="$API_KEY" "#;
    for unset in ["exec ", bare] {
        let curl = format!(r#"{unset} curl -sSf -H "Authorization: Bearer $API_KEY" {url}"#);
        stage.client("curl", stage.run(&["sh", "-c", &curl]));
        if need::program("openssl", "openssl", "openssl") {
            let ask = format!(
                r#"(printf 'GET /echo HTTP/1.1\r\nHost: {API}:{port}\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' "$API_KEY"; sleep 2) |
                   {} openssl s_client -connect {API}:{port} -servername {API} -verify_return_error -verify_hostname {API} -quiet"#,
                unset.trim_start_matches("exec ")
            );
            stage.client("openssl", stage.run(&["sh", "-c", &ask]));
        }
        let python = r#"
import os, sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["API_KEY"]})
print(urllib.request.urlopen(request, timeout=20).status)"#;
        let script = format!(r#"{unset} python3 -c "$0" {url}"#);
        stage.client("urllib", stage.run(&["sh", "-c", &script, python]));
        if need::program("git", "git", "git") {
            let script = format!(
                r#"export GIT_TERMINAL_PROMPT=0; {} git -c http.extraHeader="Authorization: Bearer $API_KEY" ls-remote https://{API}:{port}/git/x 2>&1 | grep -v certificate"#,
                unset.trim_start_matches("exec ")
            );
            stage.client("git", stage.run(&["sh", "-c", &script]));
        }
        if need::program("wget", "wget", "wget") {
            let wget = format!(r#"{unset} wget -qO- --header="Authorization: Bearer $API_KEY" {url}"#);
            stage.client("wget", stage.run(&["sh", "-c", &wget]));
        }
    }
}

/// Clients with a built-in bundle, and a variable to replace it.
#[test]
fn clients_with_their_own_bundles_trust_the_authority() {
    let Some(stage) = Stage::new() else { return };
    let url = stage.scene.url("/echo");
    if need::python("the Python clients")
        && let Some(python) = python(&stage.scene)
    {
        for (name, script) in [
            ("requests", "import requests; print(requests.get(url, headers=key, timeout=20).status_code)"),
            ("httpx", "import httpx; print(httpx.get(url, headers=key, timeout=20).status_code)"),
            (
                "aiohttp",
                "import aiohttp, asyncio\nasync def main():\n  async with aiohttp.ClientSession() as s:\n    async with s.get(url, headers=key) as r: print(r.status)\nasyncio.run(main())",
            ),
        ] {
            let script = format!(
                "import os; url = '{url}'; key = {{'Authorization': 'Bearer ' + os.environ['API_KEY']}}\n{script}"
            );
            let run = stage.run(&[python.to_str().unwrap(), "-c", &script]);
            assert_eq!(stage.client(name, run), "200\n", "{name}");
        }
        // gRPC has built-in roots, and a variable to replace them.
        let script = format!(
            r#"
import grpc, os
channel = grpc.secure_channel("{API}:{}", grpc.ssl_channel_credentials())
call = channel.unary_unary("/echo.Echo/Say", lambda m: m, lambda m: m)
try:
    call(b"hello", metadata=[("authorization", "Bearer " + os.environ["API_KEY"])], timeout=20)
except grpc.RpcError as refused:
    print(refused.code())"#,
            stage.scene.upstream.https_addr().port()
        );
        stage.client("gRPC", stage.run(&[python.to_str().unwrap(), "-c", &script]));
        // The AWS command line, with its placeholder in the key of the object.
        let script = format!(
            r#"{HOME}{} {}/aws --endpoint-url {} --region eu-central-1 --no-sign-request s3api head-object --bucket b --key "$API_KEY"; exit 0"#,
            python.display(),
            python.parent().unwrap().display(),
            url.trim_end_matches("/echo")
        );
        stage.client("aws", stage.run(&["sh", "-c", &script]));
        let script = format!(r#"{HOME}exec {}/deno eval "$0""#, python.parent().unwrap().display());
        let fetch = format!(
            "const r = await fetch('{url}', {{ headers: {{ authorization: 'Bearer ' + Deno.env.get('API_KEY') }} }}); console.log(r.status)"
        );
        assert_eq!(stage.client("deno", stage.run(&["sh", "-c", &script, &fetch])), "200\n");
        // pip queries an index. This one has no packages, which pip reports after the request.
        let index = url.replace("https://", "https://x:$API_KEY@").replace("/echo", "/simple");
        let script = format!(
            r#"{} -m pip --disable-pip-version-check --no-cache-dir download --index-url "{index}" onecli-no-such-package 2>&1 | grep -i "no matching"; exit 0"#,
            python.display()
        );
        let out = stage.run(&["sh", "-c", &script]).timeout(Duration::from_mins(2)).outcome();
        let seen = stage.scene.upstream.requests();
        stage.scene.upstream.clear();
        assert!(!seen.is_empty(), "pip reached no index: {out:?}");
    }
    if need::program("Node", "node", "nodejs") {
        let script = format!(
            "fetch('{url}', {{ headers: {{ authorization: 'Bearer ' + process.env.API_KEY }} }}).then(r => console.log(r.status))"
        );
        assert_eq!(stage.client("node", stage.run(&["node", "-e", &script])), "200\n");
    }
    if need::program("Go", "go", "golang-go") {
        // Go's own client, which queries a module proxy.
        let script = format!(
            r#"{HOME}export GOPROXY="{}/$API_KEY" GOSUMDB=off GOTOOLCHAIN=local GO111MODULE=on; go list -m -versions example.test/m@latest; exit 0"#,
            url.trim_end_matches("/echo")
        );
        stage.client("go", stage.run(&["sh", "-c", &script]));
    }
    if need::fixture("Cargo", cargo(&stage).ok_or_else(|| "the path of cargo is unknown".to_owned()))
        .is_some()
    {
        let script = format!(
            r#"{HOME}export CARGO_HOME=$PWD/cargo CARGO_REGISTRIES_X_INDEX="sparse+{}/$API_KEY/"; {} search --registry x something; exit 0"#,
            url.trim_end_matches("/echo"),
            stage.scene.daemon.home().dir().join("cargo").display()
        );
        stage.client("cargo", stage.run(&["sh", "-c", &script]));
    }
    if need::program("npm", "npm", "npm") {
        let script = format!(
            r#"cd $XDG_RUNTIME_DIR; export HOME=$PWD; echo "//{}/:_authToken=$API_KEY" > .npmrc; npm ping --registry {} --fetch-retries 0 2>&1; exit 0"#,
            url.trim_start_matches("https://").trim_end_matches("/echo"),
            url.trim_end_matches("echo")
        );
        stage.client("npm", stage.run(&["sh", "-c", &script]));
    }
    if need::program("Java", "java", "default-jre-headless") {
        let source = r#"
import java.net.*;
public class Ask {
    public static void main(String[] args) throws Exception {
        HttpURLConnection c = (HttpURLConnection) new URI(args[0]).toURL().openConnection();
        c.setRequestProperty("Authorization", "Bearer " + System.getenv("API_KEY"));
        System.out.println(c.getResponseCode());
    }
}"#;
        for unset in ["", "unset JAVA_TOOL_OPTIONS; "] {
            let script = format!(
                r#"{unset}cd $XDG_RUNTIME_DIR && printf %s "$0" > Ask.java && exec java Ask.java {url}"#
            );
            let out = stage.client("java", stage.run(&["sh", "-c", &script, source]));
            assert!(out.ends_with("200\n"), "{out}");
        }
    }
}

/// The cargo that runs this test, at a path that agents can reach: they cannot reach one in a home directory.
fn cargo(stage: &Stage) -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO")?;
    let copy = stage.scene.daemon.home().dir().join("cargo");
    std::fs::copy(cargo, &copy).ok()?;
    Some(copy)
}
