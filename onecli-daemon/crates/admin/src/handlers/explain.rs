//! `why` and `rule test`: the decision of the request path, computed by the same function, and the rules and secrets
//! that it considered.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use onecli_api::{ConsideredView, Explain, Explanation};
use onecli_model::operation::Reading;
use onecli_model::{
    Agent, Authority, CanonicalPath, MethodSet, NamedResource, Operations, PathReadings, Placeholder,
    Refusal, Secret,
};
use onecli_model::{named::MAX_NAMED, named::Naming, named::named_resources};
use onecli_policy::{
    CaptureMode, ClientEvidence, Considered, Decision, DecisionOutcome, Identity, RequestFacts, Route,
    Snapshot, Subject, Trace,
};
use onecli_store::StoreContents;

use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

pub(crate) async fn explain(context: &AdminContext, request: Explain) -> Result<Explanation, AdminError> {
    let stored = context.load().await?;
    let agent = stored.agent(&request.agent)?;
    let hypothetical = HypotheticalRequest::parse(&request)?;
    let snapshot = Arc::clone(&context.handles.policy.borrow());
    let mut explanation = hypothetical.blank(agent);

    let identity = match snapshot.identify(&evidence(&stored, agent), context.handles.clock.now()) {
        Ok(identity) => identity,
        Err(refusal) => {
            refuse(&mut explanation, &refusal);
            return Ok(explanation);
        }
    };

    let mut trace = Trace::wanted();
    let bare = hypothetical.decide(&snapshot, &identity, &[], &mut trace);
    let considered = trace.into_considered();
    // Also compute the decision with a placeholder, if the agent must present one.
    let mut outcome = None;
    if !identity.proven().satisfies(agent.factors) {
        let own: Vec<&Arc<Secret>> = applying(&considered).collect();
        let placeholder =
            |secret: &&Arc<Secret>| context.handles.vault.placeholder(agent.id, secret.id, agent.generation);
        let placeholders: Vec<Placeholder> = own.iter().map(placeholder).collect();
        if !placeholders.is_empty() {
            explanation.needs = own.iter().map(|secret| needed(secret)).collect();
            outcome = Some(hypothetical.decide(&snapshot, &identity, &placeholders, &mut Trace::none()));
        }
    }
    let otherwise = outcome.is_some().then(|| verdict(&bare));
    rule(&mut explanation, &outcome.unwrap_or(bare));
    explanation.otherwise = otherwise;
    if hypothetical.tls {
        match snapshot.route(&identity, &hypothetical.authority) {
            Route::Inspect => {}
            Route::Tunnel { reason, .. } => {
                "tunnel".clone_into(&mut explanation.decision);
                explanation.because = Some(reason.to_string());
            }
            Route::Deny(refusal) => refuse(&mut explanation, &refusal),
        }
    }
    explanation.considered = considered.iter().map(view).collect();
    Ok(explanation)
}

/// Returns the evidence that an agent presents in its intended environment.
pub(super) fn evidence(stored: &StoreContents, agent: &Agent) -> ClientEvidence {
    if agent.factors.cgroup {
        return ClientEvidence {
            mode: CaptureMode::Transparent,
            cgroup: Some(agent.cgroup.clone()),
            token: None,
        };
    }
    let token = stored.agents.iter().find(|own| own.agent.id == agent.id).map(|own| own.token_hash);
    ClientEvidence { mode: CaptureMode::Explicit, cgroup: None, token }
}

struct HypotheticalRequest {
    method: Method,
    authority: Authority,
    path: CanonicalPath,
    operations: Operations,
    named: Vec<NamedResource>,
    tls: bool,
}

impl HypotheticalRequest {
    fn parse(request: &Explain) -> Result<HypotheticalRequest, AdminError> {
        let bad = |what: String| AdminError::Invalid(what);
        let method =
            MethodSet::try_from(vec![request.method.clone()]).map_err(|error| bad(error.to_string()))?;
        let method = Vec::<String>::from(method).pop().unwrap_or_default();
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| bad(error.to_string()))?;
        let url: Uri = request.url.parse().map_err(|error| bad(format!("the URL: {error}")))?;
        let (tls, port) = match url.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(bad("use a complete URL: https://HOST/PATH".to_owned())),
        };
        let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let authority =
            Authority::parse(authority, Some(port)).map_err(|error| bad(format!("the URL: {error}")))?;
        let path = CanonicalPath::parse(url.path()).map_err(|error| bad(format!("the URL: {error}")))?;
        let fields = request
            .headers
            .iter()
            .map(|line| line.split_once(':').map(|(name, value)| (name.trim(), value.trim().as_bytes())));
        let fields: Vec<_> = fields
            .collect::<Option<_>>()
            .ok_or_else(|| bad("a header must have the form 'NAME: VALUE'".to_owned()))?;
        let naming = Naming { method: &method, authority: &authority, path: &path };
        let named = named_resources(&naming, || fields.iter().copied(), url.query())
            .ok_or_else(|| bad(format!("the request names more than {MAX_NAMED} resources")))?;
        // The explanation is for a request without a body.
        let headers: HeaderMap = fields
            .iter()
            .filter_map(|(name, value)| {
                Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
            })
            .collect();
        let mut operations = Operations::of(url.query(), &headers);
        // The query matters only to a denial that reads it.
        operations.read_query(Reading::Text, url.query()).map_err(|error| bad(error.to_string()))?;
        Ok(HypotheticalRequest { method, authority, path, operations, named, tls })
    }

    fn decide(
        &self,
        snapshot: &Snapshot,
        identity: &Identity,
        placeholders: &[Placeholder],
        trace: &mut Trace,
    ) -> DecisionOutcome {
        let facts = RequestFacts {
            method: &self.method,
            authority: &self.authority,
            path: PathReadings::new(&self.path),
            tls: self.tls,
            named: &self.named,
            placeholders,
            body: &[],
            operations: &self.operations,
            sessions: &[],
        };
        snapshot.decide_traced(identity, &facts, trace)
    }

    fn blank(&self, agent: &Agent) -> Explanation {
        Explanation {
            agent: agent.name.clone(),
            method: self.method.to_string(),
            authority: self.authority.to_string(),
            path: self.path.to_string(),
            decision: "deny".to_owned(),
            because: None,
            code: None,
            message: None,
            hint: None,
            secrets: Vec::new(),
            needs: Vec::new(),
            otherwise: None,
            approve: None,
            limits: Vec::new(),
            addresses: Vec::new(),
            considered: Vec::new(),
        }
    }
}

fn refuse(explanation: &mut Explanation, refusal: &Refusal) {
    "deny".clone_into(&mut explanation.decision);
    explanation.because = refusal.rule.as_ref().map(ToString::to_string);
    explanation.code = Some(refusal.code.as_str().to_owned());
    explanation.message = Some(refusal.message.to_string());
    explanation.hint = Some(refusal.hint.to_string());
}

fn rule(explanation: &mut Explanation, outcome: &DecisionOutcome) {
    explanation.because = outcome.reason.map(|reason| reason.to_string());
    explanation.approve = outcome.approve.as_ref().map(|rule| rule.id);
    explanation.limits = outcome.limits.iter().map(|rule| rule.id).collect();
    let open = outcome.address_scope.allowed.iter().map(|net| format!("{net} by a rule"));
    let public = outcome.address_scope.open.then(|| "addresses outside blocked ranges".to_owned());
    let closed = outcome.address_scope.denied.iter().map(|net| format!("not {net}"));
    explanation.addresses = public.into_iter().chain(open).chain(closed).collect();
    match &outcome.decision {
        Decision::Inject(grants) => {
            "inject".clone_into(&mut explanation.decision);
            explanation.secrets = grants.iter().map(|grant| grant.secret().name.clone()).collect();
        }
        Decision::Forward => "forward".clone_into(&mut explanation.decision),
        Decision::Deny(refusal) => refuse(explanation, refusal),
    }
}

fn verdict(outcome: &DecisionOutcome) -> String {
    match &outcome.decision {
        Decision::Inject(_) => "inject".to_owned(),
        Decision::Forward => "forward".to_owned(),
        Decision::Deny(refusal) => format!("deny: {}", refusal.code),
    }
}

fn applying(considered: &[Considered]) -> impl Iterator<Item = &Arc<Secret>> {
    considered.iter().filter(|one| one.mismatch.is_none()).filter_map(|one| match &one.subject {
        Subject::Secret(secret) => Some(secret),
        Subject::Rule(_) => None,
    })
}

fn needed(secret: &Secret) -> String {
    match &secret.env {
        Some(env) => format!("the placeholder of secret '{}', which is in ${env}", secret.name),
        None => format!("the placeholder of secret '{}'", secret.name),
    }
}

fn view(considered: &Considered) -> ConsideredView {
    ConsideredView {
        subject: match &considered.subject {
            Subject::Rule(rule) => rule.to_string(),
            Subject::Secret(secret) => format!("secret {}", secret.name),
        },
        applies: considered.mismatch.is_none(),
        reason: considered.mismatch.map(|mismatch| mismatch.to_string()),
    }
}
