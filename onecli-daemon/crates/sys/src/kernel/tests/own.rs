//! Connections between an agent's own sockets end as they do without OneCLI.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use onecli_common::Stat;
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    child::{Client, report, send_fastopen},
    fixture::{Fixture, PATIENCE, listen},
};

#[test]
fn own_connections_end_cleanly_in_every_way() {
    let Some(fixture) = Fixture::new("kernel::own_connections_end_cleanly_in_every_way") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    for address in ["127.0.0.1:7100", "[::1]:7100"] {
        let findings = Client::run(&fixture, &agent, &["own", address, "2000"]);
        assert_eq!(findings.errno(), 0, "{address}");
        assert_eq!(findings.get("failed"), "0", "{address}");
        assert_eq!(findings.get("hanging"), "0", "{address}");
    }
    assert_eq!(fixture.redirect.stat(Stat::Own).unwrap(), 4000);
    // To sockets that were reset and closed while the reset was on its way. Any other drop would have left a connection
    // hanging.
    let dropped = fixture.redirect.stat(Stat::PacketsDropped).unwrap();
    assert!(dropped < 100, "{dropped} packets dropped");
}

/// The child: a server and clients, which end each connection in another way.
pub(super) fn talk(address: &str, connections: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    let connections: u32 = connections.parse().expect("a number");
    let listener = listen(address);
    thread::spawn(move || {
        for (n, stream) in (0_u32..).zip(listener.incoming().flatten()) {
            thread::spawn(move || serve(stream, n));
        }
    });
    let failed = (0..connections).filter(|&n| {
        let result = one(n, address);
        if let Err(error) = &result {
            eprintln!("connection {n}: {error}");
        }
        result.is_err()
    });
    report("failed", failed.count());
    let deadline = Instant::now() + Duration::from_secs(5);
    while hanging(address.port()) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    report("hanging", hanging(address.port()));
}

/// The `n`th accepted connection: echoes the received bytes. It sometimes closes first, sometimes late.
fn serve(mut stream: TcpStream, n: u32) {
    let mut said = [0; 5];
    if stream.read_exact(&mut said).is_err() {
        return;
    }
    if n.is_multiple_of(3) {
        thread::sleep(Duration::from_millis(2));
    }
    // Some clients have closed by then.
    let _gone = stream.write_all(&said).and_then(|()| stream.shutdown(Shutdown::Write));
    let _gone = stream.read(&mut [0]);
}

/// The `n`th client.
fn one(n: u32, address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if n % 6 == 5 {
        send_fastopen(&socket, b"hello", address)?;
    } else {
        socket.connect(&address.into())?;
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    match n % 6 {
        // Closes at once; resets at once; sends and closes without reading; sends and resets.
        0 => {}
        1 => SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
        2 => stream.write_all(b"hello")?,
        3 => {
            stream.write_all(b"hello")?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        // Talks, and the server closes first.
        manner => {
            if manner == 4 {
                stream.write_all(b"hello")?;
            }
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            if answer != b"hello" {
                return Err(io::Error::other("another answer"));
            }
        }
    }
    Ok(())
}

/// Counts connections of a port that wait for the acknowledgement of their end: `FIN_WAIT1`, `LAST_ACK`, `CLOSING`.
fn hanging(port: u16) -> usize {
    let waits = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
            return false;
        };
        let port = format!(":{port:04X}");
        (local.ends_with(&port) || remote.ends_with(&port)) && ["04", "09", "0B"].contains(&state)
    };
    ["tcp", "tcp6"]
        .iter()
        .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default())
        .map(|table| table.lines().filter(|line| waits(line)).count())
        .sum()
}
