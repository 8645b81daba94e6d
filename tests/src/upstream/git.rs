//! A git repository over smart HTTP: `git http-backend` run as CGI (RFC 3875) behind Basic authentication.

use std::path::PathBuf;
use std::process::Stdio;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::answer::{Answer, Request, full, text};
use super::record::Entry;

/// A bare repository with one commit, and the credentials to read it.
pub struct Repo {
    root: TempDir,
    backend: PathBuf,
    user: String,
    password: String,
}

/// The file in the repository's one commit.
pub const FILE: &str = "hello.txt";
/// The content of [`FILE`].
pub const CONTENT: &str = "fetched through OneCLI\n";

impl Repo {
    /// Creates `demo.git`, served as `/git/demo.git`, which only `user` with `password` can read.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        let root = tempfile::Builder::new().prefix("onecli-test-git-").tempdir().expect("temp dir");
        let work = root.path().join("work");
        let bare = root.path().join("demo.git");
        std::fs::create_dir(&work).unwrap();
        let work_arg = work.to_str().expect("temp paths are UTF-8");
        run(&["init", "--quiet", "--initial-branch=main", work_arg]);
        std::fs::write(work.join(FILE), CONTENT).unwrap();
        run(&["-C", work_arg, "add", FILE]);
        run(&["-C", work_arg, "commit", "--quiet", "--message", "One file"]);
        run(&["clone", "--quiet", "--bare", work_arg, bare.to_str().expect("temp paths are UTF-8")]);
        let exec_path = git(&["--exec-path"]);
        let backend = PathBuf::from(exec_path.trim()).join("git-http-backend");
        assert!(backend.exists(), "{} is missing: install Debian's package git", backend.display());
        Self { root, backend, user: user.to_owned(), password: password.to_owned() }
    }

    /// Like [`Repo::new`], with an additional branch of this name.
    #[must_use]
    pub fn branch(self, name: &str) -> Self {
        let bare = self.root.path().join("demo.git");
        run(&["-C", bare.to_str().expect("temp paths are UTF-8"), "branch", name]);
        self
    }

    /// Responds to a request below `/git/`.
    pub(super) async fn answer(&self, request: Request, entry: &Entry) -> Answer {
        let expected =
            format!("Basic {}", BASE64.encode(format!("{}:{}", self.user, self.password).as_bytes()));
        let given = request.headers().get(header::AUTHORIZATION);
        if given.is_none_or(|g| g.as_bytes() != expected.as_bytes()) {
            let mut answer = text(StatusCode::UNAUTHORIZED, "credentials required\n");
            let challenge = HeaderValue::from_static("Basic realm=\"git\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return answer;
        }
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return text(StatusCode::BAD_REQUEST, "the body ended early\n");
        };
        entry.body(&body);
        let field =
            |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let child = Command::new(&self.backend)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_PROJECT_ROOT", self.root.path())
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_USER", &self.user)
            .env("REQUEST_METHOD", head.method.as_str())
            .env("PATH_INFO", head.uri.path().trim_start_matches("/git"))
            .env("QUERY_STRING", head.uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", field("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
            .env("GIT_PROTOCOL", field("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut child) = child else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "git-http-backend does not start\n");
        };
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        // A separate task writes the body: a full pipe on either side must not block the other.
        tokio::spawn(async move { stdin.write_all(&body).await });
        match child.wait_with_output().await {
            Ok(output) => from_cgi(&output.stdout),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "git-http-backend ended early\n"),
        }
    }
}

/// RFC 3875 section 6: header fields, an empty line, the body; `Status` is not a header field of the response.
fn from_cgi(output: &[u8]) -> Answer {
    let broken = || text(StatusCode::INTERNAL_SERVER_ERROR, "git-http-backend responded without a head\n");
    let Some(end) = memchr::memmem::find(output, b"\r\n\r\n") else { return broken() };
    let body = Bytes::copy_from_slice(&output[end + 4..]);
    let mut answer = Response::new(full(body));
    for line in String::from_utf8_lossy(&output[..end]).split("\r\n") {
        let Some((name, value)) = line.split_once(": ") else { return broken() };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|c| c.parse::<StatusCode>().ok());
            *answer.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn run(args: &[&str]) {
    git(args);
}

fn git(args: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(args)
        .output()
        .expect("git runs: install Debian's package git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
