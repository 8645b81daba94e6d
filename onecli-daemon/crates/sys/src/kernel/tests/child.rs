//! The processes inside the managed cgroups: this test binary again, as a child that joins a cgroup and does one thing.
#![allow(unsafe_code, reason = "socket types and options that no library offers")]

use std::{
    collections::HashMap,
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    cost,
    fixture::{Fixture, PATIENCE, listen},
    own, passed, storm, waiting,
};

const CGROUP: &str = "ONECLI_TEST_CGROUP";
const WORK: &str = "ONECLI_TEST_WORK";
/// Marks the child's findings in the output of the test harness.
const MARK: &str = "@@ ";
const READY: &str = "@@ ready=";

/// A process in a cgroup; killed on drop.
pub(super) struct Client {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Client {
    /// Starts a process that joins `cgroup` before it makes any socket, and then does `work`.
    pub(super) fn start(fixture: &Fixture, cgroup: &Path, work: &[&str]) -> Self {
        let path = fixture.tree().path(cgroup).expect("path");
        let mut child = Command::new(env::current_exe().expect("own path"))
            .args(["--exact", "kernel::tests::child::child_main", "--nocapture"])
            .env(CGROUP, path)
            .env(WORK, work.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a child");
        let output = child.stdout.take().map(BufReader::new);
        Self { child, output }
    }

    /// Starts a process and waits until it reports that it is `ready`.
    pub(super) fn start_ready(fixture: &Fixture, cgroup: &Path, work: &[&str]) -> Self {
        let mut client = Self::start(fixture, cgroup, work);
        client.until_ready();
        client
    }

    /// Waits until the process reports `ready` once (more).
    pub(super) fn until_ready(&mut self) {
        let output = self.output.as_mut().expect("stdout");
        let mut line = String::new();
        while !line.contains(READY) {
            line.clear();
            assert!(output.read_line(&mut line).expect("a line") > 0, "the child ended early");
        }
    }

    /// Lets a process that [`wait`]s continue.
    pub(super) fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("stdin").write_all(b"\n").expect("tell the child");
    }

    /// Starts a process, waits for its end and returns its findings.
    pub(super) fn run(fixture: &Fixture, cgroup: &Path, work: &[&str]) -> Findings {
        Self::start(fixture, cgroup, work).finish()
    }

    /// Waits for the end, and returns the findings.
    pub(super) fn finish(mut self) -> Findings {
        drop(self.child.stdin.take());
        let output = self.output.take().expect("stdout");
        let mut findings = HashMap::new();
        for line in output.lines() {
            let line = line.expect("a line");
            // The harness prints the test's name without a newline before the first finding.
            if let Some((_, finding)) = line.split_once(MARK) {
                let (key, value) = finding.split_once('=').expect("key=value");
                findings.insert(key.to_owned(), value.to_owned());
            }
        }
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "the child failed: {status}");
        Findings(findings)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Already ended, if the test went well.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The findings that a child reported.
#[derive(Debug)]
pub(super) struct Findings(HashMap<String, String>);

impl Findings {
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    /// Returns the error of an operation; 0 if it succeeded.
    pub(super) fn errno(&self) -> i32 {
        self.get("errno").parse().expect("a number")
    }
}

/// Not a test: the process that [`Client`] starts. Does nothing in an ordinary run.
#[test]
fn child_main() {
    let (Some(cgroup), Ok(work)) = (env::var_os(CGROUP), env::var(WORK)) else {
        return;
    };
    fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").expect("join the cgroup");
    let words: Vec<&str> = work.split(' ').collect();
    let result = match words[..] {
        ["connect", address] => connect(address),
        ["connect_from", address, cgroup] => connect_from(address, cgroup),
        ["udp_send_from", address, cgroup] => udp_send_from(address, cgroup),
        ["udp_send", address] => udp_send(address),
        ["udp_flood", address, number] => udp_flood(address, number),
        ["udp_connect", address] => udp_connect(address),
        ["dns", address, bind] => dns(address, bind),
        ["dns_connected", address, bind] => dns_connected(address, bind),
        ["fastopen_sendto", address] => fastopen(address, false),
        ["fastopen_connect", address] => fastopen(address, true),
        ["socket", family, kind, protocol] => socket(family, kind, protocol),
        ["storm", connections, threads] => {
            storm::client(connections, threads);
            Ok(())
        }
        ["queries", address, number] => storm::queries(address, number),
        ["abandon", address, from] => storm::abandon(address, from),
        ["pile", address, connections] => waiting::pile(address, connections),
        ["repeat", address] => repeat(address),
        ["hammer", address] => {
            hammer(address);
            Ok(())
        }
        ["bind", kind, address] => bind(kind, address),
        ["serve", address] => {
            serve(address);
            Ok(())
        }
        ["connected", address] => connected(address, None),
        ["connected_from", address, cgroup] => connected(address, Some(cgroup)),
        ["udp_connected", address] => udp_connected(address),
        ["own", address, connections] => {
            own::talk(address, connections);
            Ok(())
        }
        ["received", path, address] => passed::receive(path, address),
        ["time_connects", address, connections] => cost::time(address, connections),
        ["shell", ..] => shell(&words[1..].join(" ")),
        _ => panic!("unknown work {words:?}"),
    };
    let errno = match result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    };
    report("errno", errno);
}

/// Reports a finding to the parent.
pub(super) fn report(key: &str, value: impl std::fmt::Display) {
    let mut out = io::stdout();
    writeln!(out, "{MARK}{key}={value}").expect("stdout");
}

fn parse(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

/// Connects, sends `hello`, and reads the answer to its end.
fn connect(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(parse(address))?;
    report("peer", stream.peer_addr()?);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    report("answer", answer);
    Ok(())
}

/// Creates a socket here, moves to another cgroup, and connects from there.
fn connect_from(address: &str, cgroup: &str) -> io::Result<()> {
    let address = parse(address);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0").expect("move");
    socket.connect(&address.into())
}

/// Creates a socket here, moves to another cgroup, and sends a datagram from there.
fn udp_send_from(address: &str, cgroup: &str) -> io::Result<()> {
    let address = parse(address);
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0").expect("move");
    socket.send_to(b"x", address).map(drop)
}

fn udp_send(address: &str) -> io::Result<()> {
    let address = parse(address);
    let bind = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(bind)?.send_to(b"x", address).map(drop)
}

/// Sends `number` datagrams. The last one's error is the result.
fn udp_flood(address: &str, number: &str) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut last = Ok(());
    for _ in 0..number.parse::<u64>().expect("a number") {
        last = socket.send_to(b"x", parse(address)).map(drop);
    }
    last
}

fn udp_connect(address: &str) -> io::Result<()> {
    let address = parse(address);
    let bind = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(bind)?.connect(address)
}

/// Queries a server on an unconnected socket; reports the sender of the answer.
fn dns(address: &str, bind: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(bind)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"query", parse(address))?;
    let mut answer = [0; 64];
    let (length, sender) = socket.recv_from(&mut answer)?;
    report("sender", sender);
    report("answer", String::from_utf8_lossy(&answer[..length]));
    Ok(())
}

/// Queries a server on a connected socket; reports its peer, and the sender of the answer.
fn dns_connected(address: &str, bind: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(bind)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(parse(address))?;
    report("peer", socket.peer_addr()?);
    socket.send(b"query")?;
    let mut answer = [0; 64];
    let (length, sender) = socket.recv_from(&mut answer)?;
    report("sender", sender);
    report("answer", String::from_utf8_lossy(&answer[..length]));
    // To another server on the same socket: the answer cannot arrive, and the peer stays the same.
    let elsewhere = SocketAddr::new("192.0.2.99".parse().expect("address"), 53);
    if bind.starts_with("0.") {
        socket.send_to(b"query", elsewhere)?;
        report("peer_after", socket.peer_addr()?);
    }
    Ok(())
}

/// Opens a connection with data in its SYN; reports whether the data was sent there.
fn fastopen(address: &str, by_connect: bool) -> io::Result<()> {
    let address = parse(address);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if by_connect {
        set_option(&socket, libc::TCP_FASTOPEN_CONNECT)?;
        socket.connect(&address.into())?;
        (&socket).write_all(b"hello")?;
    } else {
        send_fastopen(&socket, b"hello", address)?;
    }
    report("peer", socket.peer_addr()?.as_socket().expect("an address"));
    let mut answer = String::new();
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.shutdown(std::net::Shutdown::Write)?;
    (&socket).read_to_string(&mut answer)?;
    report("answer", answer);
    report("syn_data", syn_data(&socket)?);
    Ok(())
}

/// Sets an integer TCP option to 1.
fn set_option(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    const SIZE: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    let one: libc::c_int = 1;
    // SAFETY: the option's value is an int.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const one).cast(), SIZE)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `sendto` with `MSG_FASTOPEN`: connects and sends at once.
pub(super) fn send_fastopen(socket: &Socket, data: &[u8], address: SocketAddr) -> io::Result<()> {
    socket.send_to_with_flags(data, &SockAddr::from(address), libc::MSG_FASTOPEN).map(drop)
}

/// Whether the peer acknowledged data sent in the SYN.
fn syn_data(socket: &Socket) -> io::Result<bool> {
    const TCPI_OPT_SYN_DATA: u8 = 32;
    #[expect(clippy::cast_possible_truncation, reason = "the size of a small struct")]
    const SIZE: libc::socklen_t = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: plain integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = SIZE;
    // SAFETY: `info` has the given length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info.tcpi_options & TCPI_OPT_SYN_DATA != 0) } else { Err(io::Error::last_os_error()) }
}

/// Connects, waits, moves to another cgroup if one is given, and sends; reports the error of sending.
fn connected(address: &str, cgroup: Option<&str>) -> io::Result<()> {
    let mut stream = TcpStream::connect(parse(address))?;
    wait();
    if let Some(cgroup) = cgroup {
        fs::write(Path::new(cgroup).join("cgroup.procs"), "0").expect("move");
    }
    let sent = stream.write_all(b"secret");
    // Data that a timer sends later.
    std::thread::sleep(Duration::from_millis(700));
    sent
}

/// Connects a UDP socket, waits, and sends a datagram.
fn udp_connected(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(parse(address))?;
    wait();
    socket.send(b"secret").map(drop)
}

/// Reports that this process is ready, and waits for [`Client::go_on`] or the end of the test.
pub(super) fn wait() {
    report("ready", 1);
    io::stdin().read_exact(&mut [0]).unwrap_or_default();
}

/// Binds a socket of the given type.
fn bind(kind: &str, address: &str) -> io::Result<()> {
    let address = parse(address);
    let kind = if kind == "udp" { Type::DGRAM } else { Type::STREAM };
    Socket::new(Domain::for_address(address), kind, None)?.bind(&address.into())
}

/// Answers every connection with the received text in capitals, until [`Client::go_on`].
fn serve(address: &str) {
    let listener = listen(parse(address));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    wait();
}

/// Answers a connection with the received text in capitals.
pub(super) fn answer(mut stream: TcpStream) {
    let mut said = String::new();
    if stream.read_to_string(&mut said).is_ok() {
        // A client that has closed needs no answer.
        let _gone = stream.write_all(said.to_uppercase().as_bytes());
    }
}

/// Runs a shell command; reports its output and its status.
fn shell(script: &str) -> io::Result<()> {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output()?;
    report("output", String::from_utf8_lossy(&output.stdout).trim().replace('\n', "|"));
    report("status", output.status);
    Ok(())
}

/// Creates a socket from numbers.
fn socket(family: &str, kind: &str, protocol: &str) -> io::Result<()> {
    let number = |word: &str| word.parse::<libc::c_int>().expect("a number");
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::socket(number(family), number(kind), number(protocol)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Connects repeatedly until the parent closes standard input; reports the number of connections.
fn repeat(address: &str) -> io::Result<()> {
    let address = parse(address);
    let ended = std::thread::spawn(|| io::stdin().read(&mut [0]));
    let mut connections = 0_u32;
    while !ended.is_finished() {
        once(address)?;
        connections += 1;
    }
    report("connections", connections);
    Ok(())
}

/// Connects repeatedly and ignores errors.
fn hammer(address: &str) {
    let address = parse(address);
    let ended = std::thread::spawn(|| io::stdin().read(&mut [0]));
    let (mut connections, mut refused) = (0_u32, 0_u32);
    while !ended.is_finished() {
        match once(address) {
            Ok(()) => connections += 1,
            Err(_) => refused += 1,
        }
    }
    report("connections", connections);
    report("refused", refused);
}

/// Connects and resets.
fn once(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.connect_timeout(&address.into(), Duration::from_secs(2))?;
    socket.set_linger(Some(Duration::ZERO))
}
