//! The processes around the agents (`py/world.py`), and their reports.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{Run, Running};
use onecli_tests::netns::Netns;
use onecli_tests::wait_for;
use serde_json::{Value, json};

/// The program of both.
const PROGRAM: &str = include_str!("py/world.py");

/// A helper process in one of the namespaces. It is controlled over a Unix socket that agents may use too.
pub(super) struct World {
    process: Running,
    control: PathBuf,
}

/// A packet that reached the target.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// The arrival time in seconds of `CLOCK_REALTIME`.
    pub(super) at: f64,
    /// IP protocol number.
    pub(super) protocol: i64,
    /// Destination address.
    pub(super) to: String,
    /// Destination port; 0 if the protocol has none.
    pub(super) port: u16,
    /// Whether it is a reset or an ICMP error without data: the kernel's reply to a packet of the target.
    pub(super) reaction: bool,
    /// Whether it carries data: not an empty TCP segment (a handshake, an acknowledgement, the end).
    pub(super) data: bool,
    /// The row whose marker it contains.
    pub(super) row: String,
}

impl World {
    /// Starts the helper in `netns` with the scene it needs, and waits until it responds.
    pub(super) fn start(netns: &Netns, dir: &Path, scene: &Value) -> Self {
        let program = dir.join("world.py");
        std::fs::write(&program, PROGRAM).unwrap();
        let control = PathBuf::from(scene["control"].as_str().expect("a path"));
        let run = Run::new("nsenter")
            .arg(format!("--net={}", netns.path().display()))
            .args(["python3".as_ref(), program.as_os_str()])
            .arg(scene.to_string())
            .timeout(Duration::from_mins(5));
        let process = run.start();
        if wait_for(Duration::from_secs(10), || control.exists().then_some(())).is_none() {
            drop(process);
            panic!("{} was not created", control.display());
        }
        Self { process, control }
    }

    /// Its control socket.
    pub(super) fn control(&self) -> &Path {
        &self.control
    }

    /// Its process id, which nsenter(1) preserves.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends `question` and returns the reply.
    pub(super) fn ask(&self, question: &Value) -> Value {
        let mut stream = UnixStream::connect(&self.control).expect("the helper listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        writeln!(stream, "{question}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_to_string(&mut answer).expect("the helper responds");
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e} in {answer:?}"))
    }

    /// The packets received so far.
    pub(super) fn packets(&self) -> Vec<Packet> {
        let status = self.ask(&json!({ "op": "status" }));
        let packet = |p: &Value| Packet {
            at: p["t"].as_f64().expect("a time"),
            protocol: p["protocol"].as_i64().expect("a number"),
            to: text(p, "to"),
            port: p["port"].as_u64().and_then(|p| p.try_into().ok()).expect("a port"),
            reaction: p["reaction"].as_bool().expect("a flag"),
            data: p["data"].as_bool().expect("a flag"),
            row: text(p, "row"),
        };
        status["packets"].as_array().expect("a list").iter().map(packet).collect()
    }
}

/// The report that an attempt printed.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// The row.
    pub(super) row: String,
    /// One word or the name of an errno; `answered WHO` if there was a response.
    pub(super) result: String,
    /// The complete error.
    pub(super) detail: String,
    /// The start in seconds of `CLOCK_REALTIME`.
    pub(super) start: f64,
    /// The end in seconds of `CLOCK_REALTIME`.
    pub(super) end: f64,
}

/// The reports in the output of a program.
pub(super) fn reports(output: &[u8]) -> Vec<Report> {
    let report = |line: &str| {
        let r: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        Report {
            row: text(&r, "row"),
            result: text(&r, "result"),
            detail: text(&r, "detail"),
            start: r["start"].as_f64().expect("a time"),
            end: r["end"].as_f64().expect("a time"),
        }
    };
    let lines = output.lines().map(|l| l.expect("text"));
    lines.filter(|l| l.starts_with('{')).map(|l| report(&l)).collect()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}
