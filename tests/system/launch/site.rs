//! A site that requires a credential with each request, and the packages that it serves.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use onecli_tests::client::Run;
use onecli_tests::daemon::Daemon;
use onecli_tests::scripted::{Conn, ScriptedUpstream, read_http1};
use onecli_tests::upstream::Upstream;
use parking_lot::Mutex;

use super::Stage;
use crate::scene::{API, Scene, VALUE};

/// The variable with the agent's placeholder for the site.
pub(super) const SITE_KEY: &str = "SITE_KEY";

/// A file of the site, by the site's `HOST:PORT` and the path.
type Files = dyn Fn(&str, &str) -> Option<Vec<u8>> + Send + Sync;

/// The site, and a stage whose agent may use it.
pub(super) struct Site {
    // Dropped first: its daemon connects to the site.
    pub(super) stage: Stage,
    pub(super) upstream: ScriptedUpstream,
    served: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// Starts a site that answers 401 to a request with another `Authorization`. `placement` is the placement of the
    /// secret. The caller has checked [`Stage::is_possible`].
    pub(super) fn start(
        authorization: String,
        placement: &[&str],
        files: impl Fn(&str, &str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let served = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&served);
        let upstream = ScriptedUpstream::start("site.test", &["http/1.1"], move |_, conn| {
            loop {
                serve(conn, &authorization, &files, &log)?;
            }
        });
        let daemon = Daemon::builder().scripted(&upstream);
        let stage = Stage::of(Scene::of(daemon, Upstream::start(&[API]), &["--bearer"]));
        let host = upstream.authority();
        let options = [&["--host", &host, "--env", SITE_KEY], placement].concat();
        stage.scene.daemon.add_secret("site", VALUE, &options);
        let _ = stage.scene.daemon.grant(&stage.robot, "site");
        Self { stage, upstream, served }
    }

    /// The served paths, in order. Each request had the credential.
    pub(super) fn served(&self) -> Vec<String> {
        self.served.lock().clone()
    }
}

fn serve(conn: &mut Conn, authorization: &str, files: &Files, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let (head, _) = read_http1(conn)?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let has_credential = field(&head, "authorization") == Some(authorization);
    let file = has_credential.then(|| files(field(&head, "host").unwrap_or_default(), path));
    let (status, body) = match file {
        None => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"site\"", Vec::new()),
        Some(None) => ("404 Not Found", Vec::new()),
        Some(Some(body)) => {
            log.lock().push(path.to_owned());
            ("200 OK", body)
        }
    };
    // pip reads an index only as HTML.
    let kind = if path.ends_with('/') { "text/html" } else { "application/octet-stream" };
    write!(conn, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    conn.write_all(&body)?;
    conn.flush()
}

/// The value of a header field in an HTTP/1 head.
fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// A gzipped tar archive of these files.
pub(super) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    packed(files, r#"cd "$1" && exec tar --create --gzip --file - *"#)
}

/// A wheel (a zip archive) with this module and its version.
pub(super) fn wheel(name: &str, module: &str) -> Vec<u8> {
    let info = format!("{name}-1.0.0.dist-info");
    let mut record = String::new();
    let files = [
        (format!("{name}.py"), module.to_owned()),
        (format!("{info}/METADATA"), format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
        ),
    ];
    for (path, _) in &files {
        writeln!(record, "{path},,").unwrap();
    }
    writeln!(record, "{info}/RECORD,,").unwrap();
    let record = (format!("{info}/RECORD"), record);
    let files: Vec<_> =
        files.iter().chain([&record]).map(|(path, text)| (path.as_str(), text.as_str())).collect();
    packed(&files, r#"cd "$1" && python3 -m zipfile -c "$2" * && exec cat "$2""#)
}

/// The output of `script`, which receives a directory with these files and a path for one output file.
fn packed(files: &[(&str, &str)], script: &str) -> Vec<u8> {
    let dir = tempfile::Builder::new().prefix("onecli-test-").tempdir().unwrap();
    let content = dir.path().join("content");
    for (path, text) in files {
        let path = content.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    }
    let run = Run::new("sh").args(["-c", script, "sh"]).arg(content).arg(dir.path().join("packed.zip"));
    let outcome = run.outcome();
    outcome.ok("packing");
    outcome.stdout
}
