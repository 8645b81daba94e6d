//! One request with a secret, with which root tests whether the service accepts it. Placement, TLS, scrubbing and
//! audit records are the same as for agents' requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header;
use http::request::Parts;
use http::{Request, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use onecli_audit::Text;
use onecli_model::harmless::{TestAnswer, TestRequest};
use onecli_model::{Code, Refusal};
use onecli_policy::{CaptureMode, TestPermit};

use super::authorized::{Authorization, AuthorizedRequest};
use super::forward;
use crate::http::body::Body;
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::placement::inject::stand_in;
use crate::http::placement::kind::StandInTest;
use crate::http::request::head::Head;
use crate::session::destination::Destination;
use crate::session::identity::Client;
use crate::session::request_audit::{GivenUp, RequestAudit};
use crate::session::{Security, Services, Session};

/// Time limit for the request and the head of its response.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for the body of the response.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of body bytes that are read. The rest is dropped with the connection.
const MOST_READ: usize = 64 * 1024;

/// Sends `test`. The caller must have checked that root makes the call.
///
/// # Errors
/// A [`Refusal`]: nothing was sent, or there was no response.
pub(crate) async fn test_secret(
    http: &Arc<Http>,
    services: &Services,
    test: &TestRequest,
) -> Result<TestAnswer, Refusal> {
    let connection = Arc::new(connection(services, test));
    let mut audit = RequestAudit::begin(&connection.session)?;
    let request_id = audit.request_id();
    let record = audit.record();
    record.mode = Some(onecli_audit::ConnectionMode::Daemon);
    record.rule = Some(Text::new(&format!("secret test by uid {}", test.uid)));
    let allowed = match allow(http, &connection, test, &mut audit) {
        Ok(allowed) => allowed,
        Err(refusal) => {
            audit.refuse(refusal.code).await;
            return Err(refusal);
        }
    };
    let given_up = audit.given_up();
    let mut sent = Box::pin(forward(http, &connection, allowed, audit));
    let in_time = tokio::time::timeout(HEAD_TIMEOUT, sent.as_mut()).await;
    // Set before the request is dropped, because the drop records the request's end.
    let response = in_time.map_err(|_| {
        given_up.set();
        late(test)
    })??;
    let status = response.status().as_u16();
    let redirect_host = redirect_host(&response, test);
    Ok(TestAnswer { status, redirect_host, text: beginning(response, &given_up).await, request_id })
}

fn connection(services: &Services, test: &TestRequest) -> HttpConnection {
    let no_peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Client::new(CaptureMode::Explicit, None, no_peer);
    let mut session = Session::new(services, client, Destination::Authority(test.authority.clone()));
    if test.tls {
        session.security = Security::Terminated { is_h2: false };
    }
    HttpConnection::new(session, 1)
}

fn allow(
    http: &Http,
    connection: &HttpConnection,
    test: &TestRequest,
    audit: &mut RequestAudit,
) -> Result<AuthorizedRequest, Refusal> {
    let mut head = Head::read(&parts(test, connection)?, &connection.expected)?;
    audit
        .record()
        .target(head.authority.host(), head.authority.port())
        .request(head.method.as_str(), &head.path);
    let TestPermit { identity, grant, scrub_grant } =
        connection.session.policy.snapshot().permit_test(test.secret, &head.facts())?;
    let (agent, secret) = (grant.agent(), grant.secret());
    let placeholder = http.secrets.vault.placeholder(agent.id, secret.id, agent.generation);
    let named = StandInTest { name: &secret.name, request: test };
    stand_in(&secret.placement, &mut head, placeholder.as_str(), &named)?;
    let authorization = Authorization::of_test(grant, scrub_grant);
    Ok(AuthorizedRequest::of_test(identity, head, authorization))
}

fn parts(test: &TestRequest, connection: &HttpConnection) -> Result<Parts, Refusal> {
    let bad = |error: http::Error| {
        Refusal::new(
            Code::BadRequest,
            format!("cannot build this request: {error}"),
            "check --path and --host",
        )
    };
    let target: Uri = test.line.target.parse().map_err(|error: http::uri::InvalidUri| bad(error.into()))?;
    let mut request = Request::builder()
        .method(test.line.method.clone())
        .uri(target)
        .header(header::HOST, test.authority.to_header(connection.expected.scheme.default_port()))
        .header(header::USER_AGENT, concat!("onecli/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*");
    for (name, value) in &test.headers {
        request = request.header(name, value);
    }
    Ok(request.body(()).map_err(bad)?.into_parts().0)
}

/// Returns the beginning of the body as text. Scrubbed bytes are `*`.
async fn beginning(response: Response<Body>, given_up: &GivenUp) -> String {
    let mut body = response.into_body();
    let mut read = Vec::new();
    let reading = async {
        // Like hyper, this does not poll a body that has ended.
        while read.len() < MOST_READ && !body.is_end_stream() {
            let Some(Ok(frame)) = body.frame().await else { return };
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
        }
    };
    if tokio::time::timeout(BODY_TIMEOUT, reading).await.is_err() {
        given_up.set();
    }
    read.truncate(MOST_READ);
    String::from_utf8_lossy(&read).into_owned()
}

/// The host that a redirect points to (RFC 9110 section 10.2.2). Its path may contain a credential, and is not shown.
fn redirect_host(response: &Response<Body>, test: &TestRequest) -> Option<String> {
    let location = response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection())?;
    let named = location.to_str().ok()?.parse::<Uri>().ok()?;
    Some(named.host().map_or_else(|| test.authority.host().to_string(), str::to_owned))
}

fn late(test: &TestRequest) -> Refusal {
    Refusal::new(
        Code::UpstreamTimeout,
        format!("{} did not answer within {} seconds", test.authority, HEAD_TIMEOUT.as_secs()),
        "try again; 'onecli doctor' checks the network of this host",
    )
}
