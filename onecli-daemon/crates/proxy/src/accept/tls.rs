//! TLS of clients: the server name decides whether it is terminated, passed on or refused.

use onecli_model::{AgentId, Authority, Code, Host, Refusal};
use onecli_policy::Route;
use onecli_tls::{ClientHello, ServerStream, TlsAlert, parse_client_hello};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::protocol::Stream;
use super::router::Router;
use crate::session::destination::Destination;
use crate::session::{Security, Session};

impl Router {
    /// Serves a connection that begins with the ClientHello `hello`.
    pub(super) async fn serve_tls(&self, mut session: Session, hello: &[u8], io: Stream) {
        // The daemon's own addresses are claimed before any byte.
        let Some(connected) = session.destination.authority() else { return };
        session.security = Security::Unread;
        let (named, authority) = target(connected, &session.destination, hello);
        session.authority = Some(named);
        match route(&session, authority) {
            Ok((Route::Inspect, authority)) => self.terminate(session, &authority, io).await,
            // Invariant 5: the protocol resolves the name, whatever address the agent chose.
            Ok((Route::Tunnel { .. }, _)) => self.serve_claimed(session, io).await,
            Ok((Route::Deny(refusal), _)) | Err(refusal) => self.refuse_tls(session, refusal, io).await,
        }
    }

    /// Terminates TLS and serves what is inside.
    async fn terminate(&self, mut session: Session, authority: &Authority, mut io: Stream) {
        if !self.agent_tls.may_accept(payer(&session), authority.host()) {
            let _ = io.write_all(&TlsAlert::AccessDenied.record()).await;
            session.refuse(Code::LimitReached, |_| {}).await;
            return;
        }
        match self.agent_tls.accept(authority.host(), io).await {
            Ok(tls) => {
                session.security = terminated(&tls);
                self.serve_claimed(session, Box::new(tls)).await;
            }
            Err(error) => {
                tracing::info!(
                    %error,
                    %authority,
                    "a client's TLS handshake failed: it must trust OneCLI's CA ('onecli ca export'); if it \
                     pins the host's certificate, an administrator can run 'onecli rule add allow --tunnel \
                     --host HOST'"
                );
                session.refuse(Code::ClientTls, |_| {}).await;
            }
        }
    }

    /// Refuses a connection in a form that the client can report, if that is cheap enough.
    async fn refuse_tls(&self, session: Session, refusal: Refusal, mut io: Stream) {
        let alert = match refusal.code {
            Code::BadRequest => TlsAlert::DecodeError,
            _ if self.may_refuse_readably(&session) => {
                return self.refuse_readably(session, refusal, io).await;
            }
            _ => TlsAlert::AccessDenied,
        };
        let _ = io.write_all(&alert.record()).await;
        session.refuse(&refusal, |_| {}).await;
    }

    /// Returns whether the daemon may complete a TLS handshake to send the reason of a refusal.
    fn may_refuse_readably(&self, session: &Session) -> bool {
        let Some(authority) = &session.authority else { return false };
        self.agent_tls.may_refuse_readably(payer(session), authority.host())
    }

    /// Completes the TLS handshake of a refused connection, so that the protocol can report the refusal.
    async fn refuse_readably(&self, mut session: Session, refusal: Refusal, io: Stream) {
        let Some(authority) = session.authority.clone() else { return };
        match self.agent_tls.accept(authority.host(), io).await {
            Ok(tls) => {
                session.security = terminated(&tls);
                match self.claimed(&session) {
                    Some(protocol) => protocol.refuse(session, refusal, Box::new(tls)).await,
                    None => _ = session.refuse(&refusal, |_| {}).await,
                }
            }
            Err(error) => {
                tracing::debug!(%error, %authority, "a refused client's TLS handshake failed");
                session.refuse(&refusal, |_| {}).await;
            }
        }
    }
}

/// The state of a connection after the handshake.
fn terminated<S>(tls: &ServerStream<S>) -> Security {
    Security::Terminated { is_h2: tls.get_ref().1.alpn_protocol() == Some(b"h2") }
}

/// Returns what policy does with a connection to `authority`.
fn route(session: &Session, authority: Result<Authority, Refusal>) -> Result<(Route, Authority), Refusal> {
    let identity = session.identify()?;
    let authority = authority?;
    Ok((session.policy.snapshot().route(&identity, &authority), authority))
}

/// The agent that is charged for certificates: the agent that the connection comes from, even a disabled one, or the
/// agent that its token proves.
fn payer(session: &Session) -> AgentId {
    let here = session.policy.agent_in(session.client.evidence.cgroup.as_ref());
    let proven = || session.identify().ok().map(|identity| identity.agent().id);
    here.or_else(proven).unwrap_or(AgentId(Uuid::nil()))
}

/// Returns the authority to record, and the authority to continue with. Server name, CONNECT target and address must
/// agree (invariant 6).
fn target(
    connected: Authority,
    destination: &Destination,
    hello: &[u8],
) -> (Authority, Result<Authority, Refusal>) {
    let server_name = match parse_client_hello(hello) {
        ClientHello::Complete { server_name } => server_name,
        ClientHello::Incomplete | ClientHello::Malformed(_) => {
            let refusal =
                Refusal::new(Code::BadRequest, "the TLS ClientHello cannot be read", "use TLS 1.2 or 1.3");
            return (connected, Err(refusal));
        }
    };
    let Some(server_name) = server_name else { return (connected.clone(), Ok(connected)) };
    let host: Host = match server_name.parse() {
        Ok(host) => host,
        Err(error) => {
            let refusal = Refusal::new(
                Code::BadRequest,
                format!("invalid TLS server name: {error}"),
                "send a host name as TLS server name",
            );
            return (connected, Err(refusal));
        }
    };
    let named = Authority::new(host, connected.port());
    if matches!(destination, Destination::Authority(_)) && named != connected {
        let refusal = Refusal::new(
            Code::Misdirected,
            format!("the CONNECT target is {connected}, but the TLS server name is {}", named.host()),
            "send CONNECT for the host in the TLS server name",
        );
        return (named, Err(refusal));
    }
    (named.clone(), Ok(named))
}
