//! `secret test`, for root only. The router checks that.

use http::{HeaderName, HeaderValue};
use onecli_api::{SecretTest, SecretTestResult};
use onecli_model::{Authority, Host, Secret, SecretName};
use onecli_model::{
    harmless::HarmlessRequest, harmless::RequestLine, harmless::TestRequest, harmless::TestVerdict,
};

use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

/// The number of characters of the response body to show.
const EXCERPT: usize = 400;

/// Sends one request with the secret.
///
/// # Errors
/// No request is known, the request is outside the secret's scope, or no response arrived.
pub(crate) async fn test(
    context: &AdminContext,
    uid: u32,
    name: &SecretName,
    request: SecretTest,
) -> Result<SecretTestResult, AdminError> {
    let stored = context.load().await?;
    let secret = stored.secret(name)?;
    let known = secret.profile.template.and_then(|name| name.template().test.as_ref());
    // The status of a path that the administrator chose has no known meaning.
    let known = known.filter(|_| request.path.is_none());
    let line = line(&request, known)?;
    let host = host(secret, &request, known)?;
    let test = TestRequest {
        secret: secret.id,
        authority: Authority::new(host, secret.target.port),
        tls: !(secret.target.allow_plaintext && secret.target.port == 80),
        line,
        headers: headers(known),
        user: request.user,
        scope: known.and_then(|known| known.scope.clone()),
        uid,
    };
    let clock = &context.handles.clock;
    let started = clock.instant();
    let answer = context.handles.host.test_secret(&test).await.map_err(|refusal| AdminError::NotTested {
        name: secret.name.to_string(),
        authority: test.authority.to_string(),
        refusal: Box::new(refusal),
    })?;
    let duration = clock.instant().duration_since(started);
    Ok(SecretTestResult {
        secret: secret.name.clone(),
        request: written(&test),
        status: answer.status,
        verdict: TestVerdict::of(known, answer.status, &answer.text),
        template_request: known.is_some(),
        redirect_host: answer.redirect_host,
        excerpt: answer.text.chars().take(EXCERPT).collect(),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        request_id: answer.request_id,
    })
}

fn line(request: &SecretTest, known: Option<&HarmlessRequest>) -> Result<RequestLine, AdminError> {
    let path = match (&request.path, known) {
        (Some(path), _) => path.as_str(),
        (None, Some(known)) => known.request.target.as_str(),
        (None, None) => {
            return Err(AdminError::Invalid(
                "no template names a harmless request for this secret: name one with --path, and --method unless it is \
                 GET"
                .to_owned(),
            ));
        }
    };
    let method = request.method.as_deref();
    let method = method.or(known.map(|known| known.request.method.as_str())).unwrap_or("GET");
    format!("{} {path}", method.to_ascii_uppercase()).parse().map_err(AdminError::Invalid)
}

/// Returns the requested host, or the secret's only host.
fn host(secret: &Secret, request: &SecretTest, known: Option<&HarmlessRequest>) -> Result<Host, AdminError> {
    let of_template = known.and_then(|known| known.host.clone());
    let mut exact = secret.target.host.exact();
    let only = || {
        let first = exact.next().filter(|_| secret.target.host.iter().count() == 1);
        first.cloned()
    };
    let fits = |host: &Host| secret.target.host.matches(host);
    request.host.clone().or(of_template.filter(fits)).or_else(only).ok_or_else(|| {
        AdminError::Invalid(format!(
            "secret '{}' goes to several hosts ({}): name one with --host",
            secret.name, secret.target.host
        ))
    })
}

fn headers(known: Option<&HarmlessRequest>) -> Vec<(HeaderName, HeaderValue)> {
    let fields = known.iter().flat_map(|known| &known.headers);
    fields.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
}

fn written(test: &TestRequest) -> String {
    let (scheme, port) = if test.tls { ("https", 443) } else { ("http", 80) };
    format!("{} {scheme}://{}{}", test.line.method, test.authority.to_header(port), test.line.target)
}
