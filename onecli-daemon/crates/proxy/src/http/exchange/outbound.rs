//! The state of a request while it is sent: what all attempts share.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderName;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body as _;
use onecli_audit::{Durable, Text};
use onecli_model::{AddressScope, AgentId, InjectionTarget, Refusal, SecretValue, WireForm};
use onecli_policy::{Grant, ScrubGrant};
use onecli_tls::Alpn;
use onecli_vault::Credential;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::authorized::{Authorization, AuthorizedRequest};
use crate::http::body::expect::Gate;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::replay::{AttemptBody, Recovery};
use crate::http::body::{Payload, Progress, RequestBody};
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::fields::head_size::check_response;
use crate::http::placeholders::content_scan::{ContentAlerts, ContentScan};
use crate::http::placement::inject::inject;
use crate::http::placement::kind::Outgoing;
use crate::http::placement::signing;
use crate::http::request::assemble::{ask_scannable, assemble, strip_overrides};
use crate::http::request::head::Head;
use crate::http::request::revoked::Revoked;
use crate::http::response::issued::Issued;
use crate::http::response::ranges::Ranges;
use crate::http::response::returned::ResponseGuard;
use crate::http::scrub::Scrubber;
use crate::http::scrub_values::{Followed, only_signed, scrubber, unopened};
use crate::http::session_cookies::{Opened, Sessions};
use crate::http::upstream::pool::Upstream;
use crate::http::upstream::pool_scope::PoolScope;
use crate::http::upstream::retry::Retries;
use crate::http::upstream::send_failure::SendFailure;
use crate::http::websocket::upgrade::Upgrade;
use crate::limits::agent_quota::QuotaShare;
use crate::session::counters::Counters;
use crate::session::request_audit::RequestAudit;

/// A request that was sent, with the beginning of its response.
pub(crate) struct Sent {
    pub(crate) method: Method,
    pub(crate) ranges: Ranges,
    pub(crate) response: Response<PeerBody>,
    pub(crate) issued: Issued,
    pub(crate) upstream: Upstream,
    pub(crate) scrubber: Scrubber,
    pub(crate) progress: Arc<Progress>,
    pub(crate) revoked: Revoked,
    pub(crate) sessions: Sessions,
    pub(super) client_upgrade: Option<Upgrade>,
}

/// A request on its way to the upstream.
pub(super) struct Outbound {
    http: Arc<Http>,
    pub(super) connection: Arc<HttpConnection>,
    agent: AgentId,
    head: Head,
    grants: Vec<Grant>,
    /// The secrets whose credential or session the request carries.
    permitted: Vec<Grant>,
    values_to_scrub: Vec<ScrubGrant>,
    followed: Followed,
    opened: Opened,
    address_scope: AddressScope,
    is_test: bool,
    upgrade: Option<Upgrade>,
    ranges: Ranges,
    pub(super) progress: Arc<Progress>,
    /// Set if the client waits for 100 (Continue).
    pub(super) gate: Option<Gate>,
    /// The body, if it can be sent again.
    whole: Option<Bytes>,
    /// The body, until the first attempt takes it.
    stream: Option<RequestBody>,
    /// The body of a failed attempt that sent nothing of it.
    recovered: Option<(AttemptBody, Recovery)>,
    scope: PoolScope,
    /// Set if the next attempt needs a new upstream connection.
    is_fresh: bool,
    /// Set after credentials were renewed once.
    is_renewed: bool,
    alerts: Option<Arc<ContentAlerts>>,
    retries: Retries,
    _share: Option<QuotaShare>,
}

impl Outbound {
    /// Prepares everything that does not depend on the upstream connection.
    ///
    /// # Errors
    /// A [`Refusal`]: the body cannot be signed.
    pub(super) async fn prepare(
        http: &Arc<Http>,
        connection: &Arc<HttpConnection>,
        allowed: AuthorizedRequest,
        audit: &mut RequestAudit,
    ) -> Result<Outbound, Refusal> {
        let AuthorizedRequest { identity, mut head, authorization, body, share, sessions, .. } = allowed;
        let agent = identity.agent().id;
        let is_judged = authorization.is_judged();
        let permitted = authorization.used();
        let opened = sessions.open(&permitted, &mut head.headers);
        audit.record().http_mut().sessions = opened.text();
        let Authorization { grants, values_to_scrub, address_scope, is_test, .. } = authorization;
        let (body, share) =
            signing::prepare(&http.bodies.held, &identity, &grants, &mut head, body, share).await?;
        let upgrade = allowed
            .client_upgrade
            .filter(|_| head.websocket)
            .and_then(|client| Upgrade::new(client, &head.headers));
        head.websocket = upgrade.is_some();
        let followed = Followed::new(&http.secrets.scrub_values, head.authority.host());
        let mut ranges = Ranges::of(&head.headers, !opened.is_empty());
        if !followed.set().is_empty() {
            ranges.is_asked = ranges.is_asked && only_signed(agent, &values_to_scrub, &followed).await;
            ask_scannable(&mut head.headers, ranges.is_asked);
        }
        if is_judged {
            strip_overrides(&mut head.headers);
        }
        let progress = Arc::new(Progress::default());
        let whole = whole(&body, upgrade.is_some());
        let gate = (allowed.expects_continue && whole.is_none() && !body.is_end_stream()).then(Gate::default);
        head.trailers.remove(&placed_in(&grants));
        let stream = RequestBody::new(body, Arc::clone(&progress)).with_trailers(head.trailers.clone());
        let connect_timeout = connection.session.upstreams.connector.dialer.connect_timeout;
        Ok(Outbound {
            retries: Retries::new(&head.method, connect_timeout),
            scope: PoolScope::new(agent, &permitted),
            stream: Some(stream.behind(gate.clone())),
            is_fresh: upgrade.is_some(),
            http: Arc::clone(http),
            connection: Arc::clone(connection),
            agent,
            head,
            grants,
            permitted,
            values_to_scrub,
            followed,
            opened,
            address_scope,
            is_test,
            upgrade,
            ranges,
            progress,
            gate,
            whole,
            recovered: None,
            is_renewed: false,
            alerts: None,
            _share: share,
        })
    }

    /// Begins an attempt: finds a connection, records the decision, and builds the request with its credentials.
    ///
    /// # Errors
    /// A [`Refusal`] that ends the request.
    pub(super) async fn attempt(
        &mut self,
        audit: &mut RequestAudit,
    ) -> Result<(Attempt, Request<AttemptBody>), Refusal> {
        let upstream = self.checkout().await?;
        upstream.describe(audit.record());
        let revoked = self.revoked(&upstream);
        let decision = audit.decide(&self.permitted).await?;
        self.judge_disguised(audit);
        let (mut outgoing, used) = self.inject(&upstream, &decision).await?;
        self.opened.put(&mut outgoing.head.headers, &upstream, &decision)?;
        audit.record().backend = backends(&used);
        let mut scrubber = scrubber(self.agent, &self.values_to_scrub, &self.followed).await?;
        let signatures = std::mem::take(&mut outgoing.signatures);
        let sent = signatures.iter().chain(self.opened.values());
        scrubber.add_forms(&sent.flat_map(WireForm::plain).collect::<Vec<_>>());
        let (body, recovery) = self.body(outgoing.body, audit);
        let request = assemble(outgoing.head, body, &upstream)?;
        Ok((Attempt { upstream, revoked, used, signatures, scrubber, recovery }, request))
    }

    async fn checkout(&self) -> Result<Upstream, Refusal> {
        let alpn = if self.upgrade.is_some() { Alpn::Http1 } else { Alpn::Any };
        let (authority, scheme) = (&self.head.authority, self.head.scheme);
        let scope = self.scope.clone();
        self.http.pool.checkout(scope, authority, scheme, alpn, self.is_fresh, &self.address_scope).await
    }

    fn revoked(&self, upstream: &Upstream) -> Revoked {
        if self.is_test {
            return Revoked::of_test(&self.connection);
        }
        Revoked::new(&self.connection, self.agent, &self.head, &self.permitted, upstream.address())
    }

    /// Raises alerts about placeholders that are disguised in the head.
    fn judge_disguised(&mut self, audit: &mut RequestAudit) {
        if self.head.disguised.is_empty() {
            return;
        }
        let disguised = std::mem::take(&mut self.head.disguised);
        let alerts = self.alerts(audit);
        for placeholder in &disguised {
            alerts.judge(placeholder.as_str());
        }
    }

    fn alerts(&mut self, audit: &mut RequestAudit) -> Arc<ContentAlerts> {
        let authority = &self.head.authority;
        Arc::clone(self.alerts.get_or_insert_with(|| Arc::new(ContentAlerts::of(audit, authority.clone()))))
    }

    /// Opens the credentials and puts them into a copy of the request.
    async fn inject(
        &self,
        upstream: &Upstream,
        decision: &Durable,
    ) -> Result<(Outgoing, Vec<Credential>), Refusal> {
        let mut outgoing = Outgoing {
            head: self.head.clone(),
            body: self.whole.clone(),
            now: self.http.clock.now(),
            signatures: Vec::new(),
        };
        let mut used = Vec::with_capacity(self.grants.len());
        for grant in &self.grants {
            let opened = self.http.secrets.credentials.open(grant).await;
            let credential = opened.map_err(|error| unopened(grant.secret(), &error))?;
            inject(&mut outgoing, &credential, upstream, decision)?;
            used.push(credential);
        }
        Ok((outgoing, used))
    }

    /// The body of the next attempt. `whole` is the body with the credentials in it, if it can be sent again.
    fn body(&mut self, whole: Option<Bytes>, audit: &mut RequestAudit) -> (AttemptBody, Recovery) {
        let body = match (self.recovered.take(), self.stream.take()) {
            (Some(recovered), _) => return recovered,
            (None, Some(streamed)) if self.whole.is_none() => streamed,
            (None, _) => {
                RequestBody::new(Payload::whole(whole.unwrap_or_default()), Arc::clone(&self.progress))
            }
        };
        if body.is_end_stream() {
            return AttemptBody::new(body);
        }
        let pace = self.http.bodies.memory.pace(&self.connection.memory, self.agent);
        AttemptBody::new(body.watched(ContentScan::new(self.alerts(audit)), pace))
    }

    /// Drops the tokens that the upstream rejected. Returns whether the request can be sent again with others.
    pub(super) async fn renews(&mut self, used: &[Credential], status: StatusCode) -> bool {
        if self.is_renewed || status != StatusCode::UNAUTHORIZED {
            return false;
        }
        let mut is_rejected = false;
        for (grant, credential) in self.grants.iter().zip(used) {
            is_rejected |= self.http.secrets.credentials.rejected(grant, credential).await;
        }
        self.is_renewed = is_rejected && self.whole.is_some();
        self.is_renewed
    }

    /// Decides whether another attempt is safe after `failure`, and waits until it may begin.
    ///
    /// # Errors
    /// The refusal that ends the request.
    pub(super) async fn recover(
        &mut self,
        attempt: Attempt,
        failure: &SendFailure,
        audit: &mut RequestAudit,
    ) -> Result<(), Refusal> {
        let Attempt { upstream, mut revoked, recovery, .. } = attempt;
        let pause = self.retries.after(failure, upstream.is_reused(), Instant::now());
        let refusal = || self.progress.fault().unwrap_or_else(|| upstream.refusal(failure.error()));
        let is_final = self.progress.fault().is_some() || upstream.is_refused();
        let pause = pause.filter(|_| !is_final).ok_or_else(refusal)?;
        if self.whole.is_none() {
            self.recovered = Some(recovery.body().await.ok_or_else(refusal)?);
        }
        audit.retry();
        self.is_fresh = true;
        tokio::select! {
            biased;
            () = &mut revoked => Err(Revoked::refusal(self.connection.session.lifecycle.revoked_code())),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// Turns the attempt that was answered into what the delivery of the response needs.
    ///
    /// # Errors
    /// A [`Refusal`]: the head of the response is too large.
    pub(super) fn sent(
        self,
        attempt: Attempt,
        response: Response<PeerBody>,
        audit: &mut RequestAudit,
    ) -> Result<Sent, Refusal> {
        check_response(&response)?;
        self.count();
        let Attempt { upstream, revoked, used, signatures, mut scrubber, .. } = attempt;
        let host = self.head.authority.host();
        let issued = Issued::new(&self.permitted, &self.head.facts());
        let sessions = self.opened.answered_by(self.permitted, host);
        let cookies = sessions.values(response.headers());
        scrubber.add_forms(&cookies.iter().flat_map(WireForm::plain).collect::<Vec<_>>());
        let known: Vec<SecretValue> = [signatures, self.opened.values().to_vec(), cookies].concat();
        // The guard is set even if there is nothing to search for, because a secret may be stored while the response
        // streams.
        let searched = (host, self.followed.set());
        let guard = ResponseGuard::new(&self.http, self.agent, audit, searched, (used, known));
        scrubber.report_to(Box::new(guard));
        Ok(Sent {
            method: self.head.method,
            ranges: self.ranges,
            response,
            issued,
            upstream,
            scrubber,
            progress: self.progress,
            revoked,
            sessions,
            client_upgrade: self.upgrade,
        })
    }

    fn count(&self) {
        let counters = &self.connection.session.recorder.counters;
        let is_plain = self.permitted.is_empty();
        let counter = if is_plain { &counters.requests_forwarded } else { &counters.requests_injected };
        Counters::add(counter, 1);
    }
}

/// The body, if it can be sent again.
fn whole(body: &Payload, is_websocket: bool) -> Option<Bytes> {
    match body {
        Payload::Whole(bytes) => Some(bytes.clone().unwrap_or_default()),
        body if body.is_end_stream() && !is_websocket => Some(Bytes::new()),
        Payload::Streamed(_) | Payload::Unsigned(_) => None,
    }
}

/// The header fields that credentials are placed in.
fn placed_in(grants: &[Grant]) -> Vec<HeaderName> {
    let targets = grants.iter().map(|grant| grant.secret().placement.injection_target());
    targets
        .filter_map(|target| if let InjectionTarget::Header(name) = target { Some(name) } else { None })
        .collect()
}

/// The sources of values that are not in the store, with the secrets' names if the request has several.
fn backends(used: &[Credential]) -> Option<Text> {
    match used {
        [one] => one.origin().map(|origin| Text::new(&origin.to_string())),
        several => {
            let named_origin = |used: &Credential| Some(format!("{}: {}", used.name(), used.origin()?));
            let all: Vec<String> = several.iter().filter_map(named_origin).collect();
            (!all.is_empty()).then(|| Text::new(&all.join(", ")))
        }
    }
}
