//! Requests tokens with stored values: one exchange with one token endpoint.

pub(super) mod client;
mod jwt;

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request};
use jiff::Timestamp;
use onecli_model::{Mint, RESERVED, SecretValue, TokenUrl};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use client::{DaemonRequestError, Purpose, TokenEndpointClient};

/// The lifetime of a token whose response contains none.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(5);
/// The longest lifetime of a cached token, even if the response contains a longer one.
const MAX_LIFETIME: Duration = Duration::from_hours(24);
/// The lifetime of a signed assertion, in seconds. GitHub accepts at most ten minutes.
const ASSERTION_LIFETIME: i64 = 540;

/// A newly issued token.
pub(super) struct IssuedToken {
    pub(super) token: SecretValue,
    pub(super) lifetime: Duration,
    /// The value to store from now on, if the endpoint issued a new refresh token.
    pub(super) successor: Option<SecretValue>,
}

/// The reason why there is no token. It never contains a value. Of the endpoint's response it contains only the
/// error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The stored value is of the wrong kind for this type of token.
    #[error("the stored value is not a {0}")]
    Material(&'static str),
    /// The endpoint could not be reached.
    #[error("{url}: {source}")]
    Unreachable {
        /// The endpoint.
        url: String,
        /// The reason.
        source: DaemonRequestError,
    },
    /// The endpoint refused the request.
    #[error("{url} responded with {status}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// The endpoint.
        url: String,
        /// The status.
        status: u16,
        /// The error code (RFC 6749 section 5.2), if there is one.
        code: Option<String>,
    },
    /// The endpoint's response contains no usable token.
    #[error("{0} responded without a usable token")]
    NoToken(String),
}

/// A refresh token, with the client's secret if there is one.
#[derive(Deserialize)]
struct Refresh {
    refresh_token: Zeroizing<String>,
    #[serde(default)]
    client_secret: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: Zeroizing<String>,
    #[serde(default)]
    private_key_id: Option<String>,
    token_uri: String,
}

#[derive(Deserialize)]
struct TokenResponse {
    #[serde(alias = "token")]
    access_token: Zeroizing<String>,
    #[serde(default)]
    expires_in: Option<f64>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    refresh_token: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
}

/// The parts of a stored value that are sent to the token endpoint. The endpoint may return them.
pub fn sent_to_endpoint(mint: &Mint, material: &SecretValue) -> Vec<SecretValue> {
    let value = |text: &str| SecretValue::new(text.as_bytes().to_vec()).ok();
    match mint {
        Mint::ClientCredentials { .. } => vec![material.clone()],
        Mint::RefreshToken { .. } => match refresh(material) {
            Some(refresh) => [Some(refresh.refresh_token), refresh.client_secret]
                .into_iter()
                .flatten()
                .filter_map(|part| value(&part))
                .collect(),
            None => vec![material.clone()],
        },
        // Signing keys are never sent.
        Mint::GithubApp { .. } | Mint::GcpServiceAccount { .. } => Vec::new(),
    }
}

/// Checks that such tokens can be requested with this value.
///
/// # Errors
/// [`MintError::Material`].
pub fn check_material(mint: &Mint, material: &SecretValue) -> Result<(), MintError> {
    match mint {
        Mint::ClientCredentials { .. } => text_of(material, "client secret").map(drop),
        Mint::RefreshToken { .. } => refresh(material).map(drop).ok_or(MintError::Material(REFRESH)),
        Mint::GithubApp { .. } => app_key(material).map(drop),
        Mint::GcpServiceAccount { .. } => service_account(material).map(drop),
    }
}

const REFRESH: &str = "refresh token, or JSON with refresh_token and client_secret";
const APP_KEY: &str = "private key of a GitHub App: store the PEM file from GitHub";
const ACCOUNT: &str = "key file of a Google service account: store the JSON file";

/// The context of a token request.
#[derive(Clone, Copy)]
pub(super) struct MintContext<'m> {
    pub(super) token_client: &'m dyn TokenEndpointClient,
    pub(super) purpose: Purpose<'m>,
    pub(super) now: Timestamp,
}

/// Requests one token.
///
/// # Errors
/// [`MintError`].
pub(super) async fn request_token(
    mint: &Mint,
    material: &SecretValue,
    context: MintContext<'_>,
) -> Result<IssuedToken, MintError> {
    let now = context.now;
    match mint {
        Mint::ClientCredentials { token_url, client_id, scope, audience } => {
            let secret = text_of(material, "client secret")?;
            let mut form = Form::new("client_credentials");
            form.add("scope", scope.as_deref());
            form.add("audience", audience.as_deref());
            send_request(context, token_url, form.request(Some((client_id, secret))), None).await
        }
        Mint::RefreshToken { token_url, client_id, scope } => {
            let refresh_token = refresh(material).ok_or(MintError::Material(REFRESH))?;
            let mut form = Form::new("refresh_token");
            form.add("refresh_token", Some(&refresh_token.refresh_token));
            form.add("scope", scope.as_deref());
            let secret = refresh_token.client_secret.as_ref().map(|secret| secret.as_str());
            if secret.is_none() {
                // A public client names itself in the body (RFC 6749 section 3.2.1).
                form.add("client_id", Some(client_id));
            }
            let request = form.request(secret.map(|secret| (client_id.as_str(), secret)));
            send_request(context, token_url, request, Some(&refresh_token)).await
        }
        Mint::GithubApp { api, app, installation } => {
            let key = app_key(material)?;
            let issued = now.as_second();
            // Issued one minute in the past, because GitHub's clock may be behind.
            let claims = json!({"iss": app, "iat": issued - 60, "exp": issued + ASSERTION_LIFETIME});
            let jwt = jwt::sign(&key, &claims, None).ok_or(MintError::Material(APP_KEY))?;
            let base = api.to_string();
            let url =
                format!("{}/app/installations/{installation}/access_tokens", base.trim_end_matches('/'));
            let url: TokenUrl = url.parse().map_err(|_| MintError::NoToken(base))?;
            let mut request = Request::new(Bytes::new());
            *request.method_mut() = Method::POST;
            let bearer = Zeroizing::new(format!("Bearer {}", *jwt));
            authorize(&mut request, &bearer);
            let headers = request.headers_mut();
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
            send_request(context, &url, request, None).await
        }
        Mint::GcpServiceAccount { scope } => {
            let account = service_account(material)?;
            let url: TokenUrl = account.token_uri.parse().map_err(|_| MintError::Material(ACCOUNT))?;
            let issued = now.as_second();
            let claims = json!({
                "iss": account.client_email, "scope": scope, "aud": account.token_uri,
                "iat": issued, "exp": issued + ASSERTION_LIFETIME,
            });
            let jwt = jwt::key(&account.private_key)
                .and_then(|key| jwt::sign(&key, &claims, account.private_key_id.as_deref()))
                .ok_or(MintError::Material(ACCOUNT))?;
            let mut form = Form::new("urn:ietf:params:oauth:grant-type:jwt-bearer");
            form.add("assertion", Some(&jwt));
            send_request(context, &url, form.request(None), None).await
        }
    }
}

fn text_of<'v>(material: &'v SecretValue, what: &'static str) -> Result<&'v str, MintError> {
    std::str::from_utf8(material.expose()).map_err(|_| MintError::Material(what))
}

fn refresh(material: &SecretValue) -> Option<Refresh> {
    let text = std::str::from_utf8(material.expose()).ok()?;
    if text.starts_with('{') {
        return serde_json::from_str(text).ok();
    }
    Some(Refresh { refresh_token: Zeroizing::new(text.to_owned()), client_secret: None })
}

fn app_key(material: &SecretValue) -> Result<aws_lc_rs::signature::RsaKeyPair, MintError> {
    jwt::key(text_of(material, APP_KEY)?).ok_or(MintError::Material(APP_KEY))
}

fn service_account(material: &SecretValue) -> Result<ServiceAccount, MintError> {
    let account: ServiceAccount =
        serde_json::from_slice(material.expose()).map_err(|_| MintError::Material(ACCOUNT))?;
    let usable = account.token_uri.parse::<TokenUrl>().is_ok() && jwt::key(&account.private_key).is_some();
    if usable { Ok(account) } else { Err(MintError::Material(ACCOUNT)) }
}

/// `application/x-www-form-urlencoded`.
struct Form(Zeroizing<String>);

impl Form {
    fn new(grant_type: &str) -> Form {
        let mut text = Zeroizing::new(String::with_capacity(4096));
        text.push_str("grant_type=");
        text.extend(utf8_percent_encode(grant_type, RESERVED));
        Form(text)
    }

    fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push('&');
            self.0.push_str(name);
            self.0.push('=');
            self.0.extend(utf8_percent_encode(value, RESERVED));
        }
    }

    /// Builds the request, with the client's id and secret in Basic authentication, form-encoded first (RFC 6749
    /// section 2.3.1).
    fn request(self, client: Option<(&str, &str)>) -> Request<Bytes> {
        let mut request = Request::new(Bytes::copy_from_slice(self.0.as_bytes()));
        *request.method_mut() = Method::POST;
        if let Some((id, secret)) = client {
            let pair = Zeroizing::new(format!(
                "{}:{}",
                utf8_percent_encode(id, RESERVED),
                utf8_percent_encode(secret, RESERVED)
            ));
            let basic = Zeroizing::new(format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes())));
            authorize(&mut request, &basic);
        }
        let headers = request.headers_mut();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        request
    }
}

/// Sets the Authorization header. The value is always ASCII.
fn authorize(request: &mut Request<Bytes>, value: &str) {
    if let Ok(mut value) = HeaderValue::try_from(value) {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
}

async fn send_request(
    context: MintContext<'_>,
    url: &TokenUrl,
    mut request: Request<Bytes>,
    refreshed: Option<&Refresh>,
) -> Result<IssuedToken, MintError> {
    let no_token = || MintError::NoToken(url.to_string());
    *request.uri_mut() = url.target().parse().map_err(|_| no_token())?;
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("onecli"));
    let MintContext { token_client, purpose, now } = context;
    let response = token_client
        .send(purpose, url.authority(), request)
        .await
        .map_err(|source| MintError::Unreachable { url: url.to_string(), source })?;
    if !response.status().is_success() {
        let code =
            serde_json::from_slice::<ErrorResponse>(response.body()).ok().map(|response| response.error);
        let is_code =
            |code: &String| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let (url, status) = (url.to_string(), response.status().as_u16());
        return Err(MintError::Refused { url, status, code: code.filter(is_code) });
    }
    let response: TokenResponse = serde_json::from_slice(response.body()).map_err(|_| no_token())?;
    let value = |text: &str| SecretValue::new(text.as_bytes().to_vec()).map_err(|_| no_token());
    let relative = response.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let until = response.expires_at.and_then(|end| Duration::try_from(end.duration_since(now)).ok());
    let successor = match (refreshed, &response.refresh_token) {
        (Some(old), Some(new)) if **new != *old.refresh_token => Some(match &old.client_secret {
            Some(secret) => {
                let text =
                    json!({"refresh_token": new.as_str(), "client_secret": secret.as_str()}).to_string();
                value(&Zeroizing::new(text))?
            }
            None => value(new)?,
        }),
        _ => None,
    };
    Ok(IssuedToken {
        token: value(&response.access_token)?,
        lifetime: relative.or(until).unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME),
        successor,
    })
}
