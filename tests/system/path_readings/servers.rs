//! Real servers that report how they read a path.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onecli_tests::wait_for;

/// The interpretation of a path, as segments.
pub(crate) type Reading = Vec<Vec<u8>>;

/// How a server reports its reading.
#[derive(Clone, Copy)]
enum Report {
    /// The body is the decoded path.
    Body,
    /// The field `X-Reading` is the decoded path, in base64.
    Field,
    /// The body is JSON: lists of segments.
    Json,
}

/// A server on a port of loopback. Drop kills it.
pub(crate) struct Reader {
    name: &'static str,
    report: Report,
    port: u16,
    process: Child,
    stream: Option<BufReader<TcpStream>>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts all of them. They write their files in `dir`.
pub(crate) fn start(dir: &Path) -> Vec<Reader> {
    let write = |name: &str, text: &str, port: u16| {
        let text = text.replace("{dir}", dir.to_str().unwrap()).replace("{port}", &port.to_string());
        let file = dir.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let start = |name: &'static str, report: Report, command: &dyn Fn(u16) -> Command| {
        let port = free_port();
        let process = command(port).stdin(Stdio::null()).spawn().unwrap();
        Reader { name, report, port, process, stream: None }
    };
    let go = dir.join("reader-go");
    let source = write("reader.go", include_str!("go.go"), 0);
    let mut build = Command::new("go");
    build
        .args(["build", "-o"])
        .arg(&go)
        .arg(source)
        .env("GOCACHE", dir.join("gocache"))
        .env("GOTOOLCHAIN", "local");
    assert!(
        build.current_dir(dir).env("GO111MODULE", "off").status().unwrap().success(),
        "the Go server does not build"
    );
    let mut readers = vec![
        start("nginx", Report::Body, &|port| {
            let mut command = Command::new("nginx");
            command.arg("-p").arg(dir).arg("-c").arg(write("nginx.conf", include_str!("nginx.conf"), port));
            command
        }),
        start("Apache", Report::Field, &|port| {
            let mut command = Command::new("apache2");
            command.args(["-X", "-f"]).arg(write("apache.conf", include_str!("apache.conf"), port));
            command
        }),
        start("Node", Report::Json, &|port| {
            let mut command = Command::new("node");
            command.arg(write("reader.js", include_str!("node.js"), port)).arg(port.to_string());
            command
        }),
        start("Go", Report::Json, &|port| {
            let mut command = Command::new(&go);
            command.arg(port.to_string());
            command
        }),
        start("Python", Report::Json, &|port| {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(write("reader.py", include_str!("python.py"), port)).arg(port.to_string());
            command
        }),
    ];
    for reader in &mut readers {
        let up = wait_for(Duration::from_secs(30), || TcpStream::connect(("127.0.0.1", reader.port)).ok());
        assert!(up.is_some(), "{} does not listen", reader.name);
    }
    readers
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Reader {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The server's interpretation of `path`; empty if it refuses the path.
    pub(crate) fn read(&mut self, path: &str) -> Vec<Reading> {
        // Servers close a connection after a request that they refuse.
        let (head, body) = self.ask(path).or_else(|| self.ask(path)).unwrap_or_default();
        let refused = head.starts_with("HTTP/1.1 400");
        let split = |text: &[u8]| text.split(|byte| *byte == b'/').skip(1).map(<[u8]>::to_vec).collect();
        match self.report {
            _ if refused || head.is_empty() => Vec::new(),
            Report::Body => vec![split(&body)],
            Report::Field => {
                let field = head.lines().find_map(|line| line.strip_prefix("X-Reading: ")).unwrap();
                vec![split(&data_encoding::BASE64.decode(field.as_bytes()).unwrap())]
            }
            Report::Json => {
                let readings: Vec<Vec<String>> = serde_json::from_slice(&body).unwrap();
                let bytes =
                    |segments: Vec<String>| segments.into_iter().skip(1).map(String::into_bytes).collect();
                readings.into_iter().map(bytes).collect()
            }
        }
    }

    /// Head and body of the response; `None` if the connection was closed.
    fn ask(&mut self, path: &str) -> Option<(String, Vec<u8>)> {
        let stream = self.stream.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            BufReader::new(stream)
        });
        let mut stream = stream;
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: reader.test\r\n\r\n").ok()?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        stream.read_exact(&mut body).ok()?;
        let open = length.is_some() && !lower.contains("connection: close");
        self.stream = open.then_some(stream);
        Some((head, body))
    }
}
