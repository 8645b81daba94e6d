//! Clients of many kinds trust the authority with nothing said to them but what `onecli run` says.

use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::need;

use super::{Stage, python};
use crate::scene::{API, VALUE};

impl Stage {
    /// Runs a client that makes one request with the key it finds.
    fn client(&self, what: &str, run: Run) -> String {
        let out = run.timeout(Duration::from_mins(2)).outcome().ok(what);
        let seen = self.scene.upstream.requests();
        self.scene.upstream.clear();
        let injected: usize = seen.iter().map(|request| request.count(VALUE)).sum();
        assert!(injected >= 1, "{what}: {seen:#?}\n{out}");
        out
    }
}

/// With the usual variables, and without any: then it is the system's bundle that is the agent's own.
#[test]
fn programs_of_the_system() {
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

/// Each has a bundle of its own, and a variable for another.
#[test]
fn clients_with_bundles_of_their_own() {
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
        // pip asks an index; this one has no packages, which it says after the request.
        let index = url.replace("https://", "https://x:$API_KEY@").replace("/echo", "/simple");
        let script = format!(
            r#"{} -m pip --disable-pip-version-check --no-cache-dir download --index-url "{index}" onecli-no-such-package 2>&1 | grep -i "no matching"; exit 0"#,
            python.display()
        );
        let out = stage.run(&["sh", "-c", &script]).timeout(Duration::from_mins(2)).outcome();
        let seen = stage.scene.upstream.requests();
        stage.scene.upstream.clear();
        assert!(!seen.is_empty(), "pip reached nothing: {out:?}");
    }
    if need::program("Node", "node", "nodejs") {
        let script = format!(
            "fetch('{url}', {{ headers: {{ authorization: 'Bearer ' + process.env.API_KEY }} }}).then(r => console.log(r.status))"
        );
        assert_eq!(stage.client("node", stage.run(&["node", "-e", &script])), "200\n");
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
