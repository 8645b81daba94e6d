//! The end-to-end part of `onecli doctor`. A temporary agent, secret and service send a credential in both modes and
//! check where it arrives.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use onecli_api::{
    AgentToken, AgentView, Ca, Explanation, GrantView, RuleView, SecretView, WireValue, routes,
};
use onecli_config::DaemonLayout;
use onecli_model::{AgentName, CgroupName, Check, Factors, Host, Placement, Random, SecretName, SecretValue};
use onecli_sys::OsRandom;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::probe::{from_cgroup, over_tls};
use crate::client::{Client, ClientError};

const EXPLICIT: &str = "self-test explicit";
const TRANSPARENT: &str = "self-test transparent";
const TLS: &str = "self-test TLS";
/// The name prefix of the test's agents and secrets; the process id follows.
const PREFIX: &str = "doctor-self-test-";
/// The time limit for one request, including its preparation.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest part of a response to read, in bytes.
const MAX_RESPONSE: u64 = 64 * 1024;
const LOG: &str = "see the daemon's log and 'onecli audit list'";

/// Sends a credential through the explicit proxy and, as root, from an agent's cgroup. Only its audit records remain.
pub(super) fn self_test(client: &Client, layout: &DaemonLayout) -> Vec<Check> {
    if layout.proxied {
        return vec![Check::warn(
            "self-test",
            "skipped: the daemon reaches upstreams through upstream.proxy, which cannot reach this command",
            "to enable the test, add 127.0.0.1 to upstream.no_proxy",
        )];
    }
    match Fixture::set(client) {
        Ok(stage) => stage.checks(layout),
        Err(ClientError::NotPermitted(_)) => vec![Check::warn(
            "self-test",
            "skipped: only administrators may run it",
            "use sudo, or join the group 'onecli'",
        )],
        Err(error) => vec![Check::fail("self-test", error.to_string(), LOG)],
    }
}

/// Writes `request` to `address`, and returns the bytes received until the peer closes.
///
/// # Errors
/// The socket's errors. Reads and writes time out after [`TIMEOUT`].
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(address)?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut answer)?;
    Ok(answer)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// The objects of the test. Dropping it removes them.
struct Fixture<'c> {
    client: &'c Client,
    agent: AgentName,
    secret: SecretName,
    canary: TestService,
    value: String,
    token: String,
    cgroup: CgroupName,
    placeholder: String,
    /// Why this host's rules would refuse the test's requests.
    refused: Option<String>,
}

impl<'c> Fixture<'c> {
    fn set(client: &'c Client) -> Result<Fixture<'c>, ClientError> {
        let broken = |error: &dyn std::fmt::Display| ClientError::BrokenOff(error.to_string());
        remove_leftovers(client)?;
        let name = format!("{PREFIX}{}", std::process::id());
        let canary = TestService::start().map_err(ClientError::Runtime)?;
        let mut random = [0; 16];
        OsRandom.fill(&mut random).map_err(|error| broken(&error))?;
        let value = format!("onecli-self-test-{}", data_encoding::HEXLOWER.encode(&random));
        let agent: AgentName = name.parse().map_err(|error| broken(&error))?;
        let secret: SecretName = name.parse().map_err(|error| broken(&error))?;
        let added: AgentToken =
            client.post(routes::AGENTS, &json!({"name": agent, "factors": Factors::TOKEN}))?;
        // From here on, dropping the value removes the objects.
        let mut stage = Fixture {
            client,
            agent,
            secret,
            canary,
            value,
            token: added.token,
            cgroup: added.agent.cgroup,
            placeholder: String::new(),
            refused: None,
        };
        stage.allow()?;
        Ok(stage)
    }

    /// Adds the secret, and allows connections to this process's own loopback.
    fn allow(&mut self) -> Result<(), ClientError> {
        let (host, port) = (Ipv4Addr::LOCALHOST, self.canary.address.port());
        let value = SecretValue::new(self.value.clone().into_bytes())
            .map_err(|error| ClientError::BrokenOff(error.to_string()))?;
        let value = WireValue(value);
        let _: SecretView = self.client.post(
            routes::SECRETS,
            &json!({
                "name": self.secret, "host": host.to_string(), "port": port, "methods": ["GET"],
                "placement": Placement::bearer(), "allow_plaintext": true, "value": value,
            }),
        )?;
        let _: RuleView = self.client.post(
            routes::RULES,
            &json!({
                "agent": self.agent,
                "terms": {
                    "action": "allow", "host": host.to_string(), "port": port.to_string(), "methods": ["GET"],
                    "address": format!("{host}/32"),
                },
            }),
        )?;
        let grant: GrantView = self.client.put(&routes::grant(&self.agent, &self.secret))?;
        self.placeholder = grant.placeholder;
        let question =
            json!({"agent": self.agent, "method": "GET", "url": format!("http://{host}:{port}/why")});
        let why: Explanation = self.client.post(routes::EXPLAIN, &question)?;
        self.refused = match (why.decision.as_str(), why.approve) {
            ("inject", None) => None,
            ("inject", Some(rule)) => Some(format!("rule {rule} requires an approval")),
            _ => Some(why.because.unwrap_or(why.decision)),
        };
        Ok(())
    }

    fn checks(&self, layout: &DaemonLayout) -> Vec<Check> {
        if let Some(reason) = &self.refused {
            return vec![Check::warn(
                "self-test",
                format!(
                    "skipped: your rules do not allow an agent to reach this command's service ({reason})"
                ),
                "this is not a problem; rules for named hosts or agents would allow the test",
            )];
        }
        let mut checks = Vec::new();
        match layout.explicit.first() {
            Some(&proxy) => {
                checks.push(self.explicit(proxy));
                checks.push(self.tls(proxy));
            }
            None => checks.push(Check::warn(
                EXPLICIT,
                "skipped: the explicit proxy does not listen, or only over TLS",
                "if agents should use it, set an address in listen.explicit",
            )),
        }
        if layout.ebpf {
            checks.push(self.transparent(layout));
        }
        checks
    }

    fn explicit(&self, proxy: SocketAddr) -> Check {
        let target = format!("http://{}/explicit", self.canary.address);
        let fields = format!("Proxy-Authorization: Bearer {}\r\n", self.token);
        self.judge(EXPLICIT, "/explicit", &ask(proxy, &self.request(&target, &fields)))
    }

    fn transparent(&self, layout: &DaemonLayout) -> Check {
        if !nix::unistd::geteuid().is_root() {
            return Check::warn(
                TRANSPARENT,
                "skipped: it must start a process in a cgroup",
                "sudo onecli doctor",
            );
        }
        let request = self.request("/transparent", "");
        self.judge(
            TRANSPARENT,
            "/transparent",
            &from_cgroup(layout, &self.cgroup, self.canary.address, &request),
        )
    }

    fn request(&self, target: &str, fields: &str) -> Vec<u8> {
        let (host, placeholder) = (self.canary.address, &self.placeholder);
        format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Authorization: Bearer {placeholder}\r\nConnection: close\r\n\r\n"
        )
        .into_bytes()
    }

    /// Checks that the credential arrived, and that the response contains no part of it.
    fn judge(&self, name: &str, path: &str, answer: &io::Result<Vec<u8>>) -> Check {
        let answer = match answer {
            Ok(answer) => String::from_utf8_lossy(answer),
            Err(error) => return Check::fail(name, format!("no response: {error}"), LOG),
        };
        if answer.contains(&self.value) {
            return Check::fail(
                name,
                "the response returned the credential to the agent",
                "do not use this daemon; report this to its maintainers",
            );
        }
        let arrived = self.canary.seen().iter().any(|head| head.contains(path) && head.contains(&self.value));
        match (status(&answer), arrived) {
            (Some(200), true) => {
                Check::ok(name, "the credential was injected, and scrubbed from the response")
            }
            (Some(200), false) => Check::fail(name, "the service responded, but received no credential", LOG),
            (status, _) => Check::fail(name, status_description(status, &answer), LOG),
        }
    }

    /// Checks that a client with the bundle trusts the daemon, and that a service without TLS receives nothing.
    fn tls(&self, proxy: SocketAddr) -> Check {
        let bundle = match self.client.get::<Ca>(routes::CA) {
            Ok(ca) => ca.bundle,
            Err(error) => return Check::fail(TLS, error.to_string(), LOG),
        };
        let asked = self.tunnel(proxy).and_then(|stream| {
            let host = Host::V4(Ipv4Addr::LOCALHOST);
            over_tls(stream, &bundle, &host, &self.request("/tls", ""))
        });
        let answer = match &asked {
            Ok(answer) => String::from_utf8_lossy(answer),
            Err(error) => {
                let fix = format!(
                    "agents trust the CA through {}: see 'onecli ca show' and the daemon's log",
                    bundle.display()
                );
                return Check::fail(TLS, format!("no TLS with the daemon: {error}"), fix);
            }
        };
        let leaked = self.canary.seen().iter().any(|head| head.contains("/tls"));
        match (status(&answer), leaked) {
            (Some(502), false) => Check::ok(
                TLS,
                format!(
                    "clients that trust {} trust the daemon; a service without a certificate received nothing",
                    bundle.display()
                ),
            ),
            (_, true) => Check::fail(
                TLS,
                "a request was sent to a service without a certificate",
                "do not use this daemon; report this to its maintainers",
            ),
            (status, false) => Check::fail(TLS, status_description(status, &answer), LOG),
        }
    }

    /// Opens a connection through the proxy to the service.
    fn tunnel(&self, proxy: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = connect(proxy)?;
        let target = self.canary.address;
        let fields = format!("Host: {target}\r\nProxy-Authorization: Bearer {}\r\n\r\n", self.token);
        stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n{fields}").as_bytes())?;
        let head = read_head(&mut stream)?;
        match status(&head) {
            Some(200) => Ok(stream),
            status => Err(io::Error::other(status_description(status, &head))),
        }
    }
}

impl Drop for Fixture<'_> {
    fn drop(&mut self) {
        // An error cannot be reported here. The next `doctor` removes leftovers.
        let _ = remove_fixture(self.client, &self.agent, &self.secret);
    }
}

/// Removes the agent, with its grants and rules, and the secret.
fn remove_fixture(client: &Client, agent: &AgentName, secret: &SecretName) -> Result<(), ClientError> {
    let agent = client.delete::<Value>(&format!("{}?{}", routes::agent(agent), routes::KILL));
    let secret = client.delete::<Value>(&routes::secret(secret));
    agent.and(secret).map(drop)
}

/// Removes leftovers of a killed `doctor`.
fn remove_leftovers(client: &Client) -> Result<(), ClientError> {
    let is_over = |name: &str| {
        let process = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        process.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
    };
    for agent in client.get::<Vec<AgentView>>(routes::AGENTS)? {
        if is_over(agent.name.as_str()) {
            client.delete::<Value>(&routes::agent(&agent.name))?;
        }
    }
    for secret in client.get::<Vec<SecretView>>(routes::SECRETS)? {
        if is_over(secret.name.as_str()) {
            client.delete::<Value>(&routes::secret(&secret.name))?;
        }
    }
    Ok(())
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Formats a refusal as one line.
fn status_description(status: Option<u16>, answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let message = serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|body| Some(body["error"]["message"].as_str()?.to_owned()))
        .unwrap_or_else(|| answer.lines().next().unwrap_or_default().to_owned());
    status.map_or_else(|| format!("not HTTP: {message}"), |status| format!("{status}: {message}"))
}

/// Reads a head without its body. It reads byte by byte, because another protocol follows.
fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The service: plain HTTP on loopback that responds with the received request. It stops on drop.
struct TestService {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestService {
    fn start() -> io::Result<TestService> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (seen, stopped) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (seen, stopped) = (Arc::clone(&seen), Arc::clone(&stopped));
            move || {
                for stream in listener.incoming().flatten() {
                    if stopped.load(SeqCst) {
                        return;
                    }
                    // Input other than HTTP gets no response.
                    let _ = answer(stream, &seen);
                }
            }
        });
        Ok(TestService { address, seen, stopped, thread: Some(thread) })
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    /// The first byte of a TLS handshake record.
    const TLS_HANDSHAKE: u8 = 22;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    if first[0] == TLS_HANDSHAKE {
        return Ok(());
    }
    let head = read_head(&mut io::Read::chain(&first[..], &mut stream))?;
    seen.lock().push(head.clone());
    let length = head.len();
    stream.write_all(
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}")
            .as_bytes(),
    )
}
