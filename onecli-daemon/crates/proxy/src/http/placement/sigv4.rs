//! AWS Signature Version 4: signs a request again, as described in "Signing AWS API requests" in the IAM user guide.

use hmac::{Hmac, KeyInit, Mac};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use onecli_model::placement::SigV4;
use onecli_model::{AwsKeys, Code, Host, RESERVED, Refusal, SecretValue};
use onecli_vault::Credential;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::aws_hosts::Endpoint;
use super::kind::{Inject, Outgoing, StandInTest, test_value, unusable};
use crate::http::fields::names::remove_copies;
use crate::http::request::head::Head;

/// The only algorithm. Its name begins the text to be signed.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The header with the hash of the body, or with a marker in its place.
pub(crate) const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// The marker for chunks without signatures, followed by trailers.
pub(super) const UNSIGNED_TRAILERS: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
/// The marker for services that accept a body without a hash over TLS.
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

impl Inject for SigV4 {
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal> {
        let head = &mut outgoing.head;
        let keys = AwsKeys::parse(credential.value()).map_err(|_| unusable(credential))?;
        let scope = Scope::settle(head, self.region.as_deref(), self.service.as_deref(), &self.except)?;
        let body = hash_of(head, outgoing.body.as_deref(), &scope);
        outgoing.signatures.push(sign(head, &keys, &scope, outgoing.now, &body)?);
        Ok(())
    }

    fn stand_in(&self, head: &mut Head, placeholder: &str, test: &StandInTest<'_>) -> Result<(), Refusal> {
        if let Some(scope) = &test.request.scope {
            let signature = format!(
                "AWS4-HMAC-SHA256 Credential={placeholder}/20260101/{scope}/aws4_request, SignedHeaders=host, Signature=0"
            );
            head.headers.insert(header::AUTHORIZATION, test_value(signature)?);
        }
        Ok(())
    }
}

/// The scope of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(super) region: String,
    pub(crate) service: String,
}

impl Scope {
    /// The scope in the form that signatures use.
    fn on(&self, day: &str) -> String {
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }

    /// The scope in the agent's own signature, in `Authorization` or in the query of a presigned URL.
    pub(super) fn claimed(head: &Head) -> Option<Scope> {
        let in_header = || {
            let value = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
            let fields = value.strip_prefix(ALGORITHM)?;
            let credential = fields.split(',').find_map(|field| field.trim().strip_prefix("Credential="))?;
            Some(credential.to_owned())
        };
        let in_query = || {
            let mut pairs = head.query.as_deref()?.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(name, _)| *name == "X-Amz-Credential")?;
            Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
        };
        let credential = in_header().or_else(in_query)?;
        let mut parts = credential.rsplit('/');
        let ("aws4_request", service, region) = (parts.next()?, parts.next()?, parts.next()?) else {
            return None;
        };
        let plain = |text: &str| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        (plain(service) && plain(region))
            .then(|| Scope { region: region.to_owned(), service: service.to_owned() })
    }

    /// The scope to sign for: that of the secret, or that of the agent's signature if it fits the host.
    ///
    /// # Errors
    /// A [`Refusal`] that names the missing or wrong part.
    pub(crate) fn settle(
        head: &Head,
        region: Option<&str>,
        service: Option<&str>,
        except: &[String],
    ) -> Result<Scope, Refusal> {
        let claimed = Scope::claimed(head);
        let pick = |fixed: Option<&str>, own: fn(&Scope) -> &str, what: &str| {
            fixed.or(claimed.as_ref().map(own)).map(str::to_owned).ok_or_else(|| {
                Refusal::new(
                    Code::PlaceholderMissing,
                    format!("the request is not signed, so its AWS {what} is unknown"),
                    "sign it with the AWS SDK and the placeholder as access key, or ask an administrator to \
                     set region and service with --sigv4 REGION/SERVICE",
                )
            })
        };
        let scope = Scope {
            region: pick(region, |scope| &scope.region, "region")?,
            service: pick(service, |scope| &scope.service, "service")?,
        };
        if except.contains(&scope.service) {
            return Err(Refusal::new(
                Code::CredentialEndpoint,
                format!(
                    "the service '{}' can create credentials, so requests to it are not signed",
                    scope.service
                ),
                "ask an administrator to create them, or to store a secret with --sigv4 and without \
                 --template",
            ));
        }
        scope.fits(head.authority.host(), service.is_some())?;
        Ok(scope)
    }

    /// Checks that the scope fits the host. If the secret names the service, the operator has chosen it, and only the
    /// region is checked.
    fn fits(&self, host: &Host, is_named: bool) -> Result<(), Refusal> {
        let refused =
            |message: String, hint: &'static str| Err(Refusal::new(Code::EgressDenied, message, hint));
        let naming = "ask an administrator to store a secret for this host that names its service: --sigv4 \
                      REGION/SERVICE";
        let Some(endpoint) = Endpoint::of(host) else {
            return if is_named {
                Ok(())
            } else {
                refused(format!("{host} is not an AWS endpoint, so its service is unknown"), naming)
            };
        };
        if let Some(own) = endpoint.region.filter(|own| *own != self.region) {
            return refused(
                format!("the signature is for the region '{}', but the host is in '{own}'", self.region),
                "set the SDK's region to that of the endpoint",
            );
        }
        if is_named {
            return Ok(());
        }
        if endpoint.is_a_customers() {
            return refused(format!("{host} runs a customer's program, not an AWS service"), naming);
        }
        if !endpoint.is_of(&self.service) {
            return refused(
                format!(
                    "the signature is for the service '{}', but {host} belongs to another service",
                    self.service
                ),
                "send the request to the service that it is signed for",
            );
        }
        Ok(())
    }
}

/// Removes every trace of the agent's own signature.
pub(super) fn strip(head: &mut Head) {
    for name in [&header::AUTHORIZATION, &DATE, &TOKEN, &header::DATE] {
        remove_copies(&mut head.headers, name);
    }
    let Some(query) = &head.query else { return };
    let own = ["algorithm", "credential", "date", "expires", "signedheaders", "signature", "security-token"];
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            let name = percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
            !name.strip_prefix("x-amz-").is_some_and(|rest| own.contains(&rest))
        })
        .collect();
    head.query = (!kept.is_empty()).then(|| kept.join("&"));
}

/// Returns a refusal if the request is signed in a way that cannot be repeated.
pub(crate) fn unsupported(head: &Head) -> Option<Refusal> {
    let algorithm = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let body = head.headers.get(CONTENT_SHA256).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let what = if algorithm.is_some_and(|text| text.starts_with("AWS4-ECDSA")) {
        "a signature of version 4A"
    } else if body.contains("EVENTS") || body.contains("ECDSA") {
        "a signed event stream"
    } else {
        return None;
    };
    Some(Refusal::new(
        Code::BadRequest,
        format!("the daemon cannot sign this request again: it has {what}"),
        "set the SDK to Signature Version 4 with one region and without event streams",
    ))
}

/// Signs `head` in its current form, with the hash of its body or the marker in its place. Returns the signature:
/// while it is valid, anyone who knows it can send the request.
///
/// # Errors
/// [`Code::SecretUnavailable`] if the keys do not fit a header.
pub(crate) fn sign(
    head: &mut Head,
    keys: &AwsKeys,
    scope: &Scope,
    now: Timestamp,
    body: &str,
) -> Result<SecretValue, Refusal> {
    let unusable = |_| {
        Refusal::new(
            Code::SecretUnavailable,
            "the AWS keys do not fit into a header",
            "ask an administrator to store them again with 'onecli secret rotate'",
        )
    };
    strip(head);
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    head.headers.insert(DATE, HeaderValue::try_from(&time).map_err(|e| unusable(e.to_string()))?);
    if let Some(token) = &keys.token {
        let mut token = HeaderValue::from_bytes(token.expose()).map_err(|e| unusable(e.to_string()))?;
        token.set_sensitive(true);
        head.headers.insert(TOKEN, token);
    }
    if scope.service == "s3" || head.headers.contains_key(CONTENT_SHA256) {
        let value = HeaderValue::try_from(body).map_err(|e| unusable(e.to_string()))?;
        remove_copies(&mut head.headers, &CONTENT_SHA256);
        head.headers.insert(CONTENT_SHA256, value);
    }
    let host = head.authority.to_header(head.scheme.default_port());
    let mut fields: Vec<(String, String)> = vec![("host".to_owned(), host)];
    for name in head.headers.keys().filter(|name| is_signed(name)) {
        fields.push((name.as_str().to_owned(), canonical_value(&head.headers, name)));
    }
    fields.sort();
    let canonical = Canonical {
        method: head.method.as_str(),
        path: canonical_path(head.path.as_str(), &scope.service),
        query: canonical_query(head.query.as_deref().unwrap_or_default()),
        fields,
        body,
    };
    let signature = canonical.signature(keys, scope, &time);
    let value = Zeroizing::new(canonical.authorization(keys, scope, &time, &signature));
    let mut value = HeaderValue::try_from(value.as_str()).map_err(|e| unusable(e.to_string()))?;
    value.set_sensitive(true);
    head.headers.insert(header::AUTHORIZATION, value);
    SecretValue::new(signature.as_bytes().to_vec()).map_err(|e| unusable(e.to_string()))
}

/// Returns whether the field is part of the signature, because it has a meaning for the service.
fn is_signed(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-amz-")
        || [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::RANGE].contains(name)
        || matches!(name.as_str(), "content-md5" | "x-amzn-requestid")
}

/// The values in order, without outer spaces, and with inner runs of spaces reduced to one.
fn canonical_value(headers: &HeaderMap, name: &HeaderName) -> String {
    let plain = |value: &HeaderValue| {
        String::from_utf8_lossy(value.as_bytes())
            .split([' ', '\t'])
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    headers.get_all(name).iter().map(plain).collect::<Vec<_>>().join(",")
}

/// S3 encodes a key once; every other service encodes the path again as it was sent.
fn canonical_path(path: &str, service: &str) -> String {
    let segment = |segment: &str| -> String {
        if service == "s3" {
            let decoded: Vec<u8> = percent_decode_str(segment).collect();
            percent_encoding::percent_encode(&decoded, RESERVED).to_string().replace("%2F", "/")
        } else {
            utf8_percent_encode(segment, RESERVED).to_string()
        }
    };
    if service == "s3" {
        return path.split('/').map(segment).collect::<Vec<_>>().join("/");
    }
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "" | "." => {}
            ".." => _ = kept.pop(),
            part => kept.push(part),
        }
    }
    let mut out = String::new();
    for part in kept {
        out.push('/');
        out.push_str(&segment(part));
    }
    if out.is_empty() || path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..") {
        out.push('/');
    }
    out
}

/// The query with names and values encoded uniformly, then sorted.
fn canonical_query(query: &str) -> String {
    let encode = |text: &str| {
        let decoded: Vec<u8> = percent_decode_str(text).collect();
        percent_encoding::percent_encode(&decoded, RESERVED).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// A canonical request.
struct Canonical<'h> {
    method: &'h str,
    path: String,
    query: String,
    /// Sorted by name.
    fields: Vec<(String, String)>,
    body: &'h str,
}

impl Canonical<'_> {
    fn text(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let fields = fields.join("\n");
        format!("{}\n{}\n{}\n{fields}\n\n{}\n{}", self.method, self.path, self.query, self.names(), self.body)
    }

    fn names(&self) -> String {
        self.fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";")
    }

    /// The signature, in hex; `time` has the form of `x-amz-date`.
    fn signature(&self, keys: &AwsKeys, scope: &Scope, time: &str) -> Zeroizing<String> {
        let in_scope = scope.on(&time[..8]);
        let to_sign = format!("{ALGORITHM}\n{time}\n{in_scope}\n{}", sha256_hex(self.text().as_bytes()));
        let mut key = Zeroizing::new(b"AWS4".to_vec());
        key.extend_from_slice(keys.secret.expose());
        for part in [&time[..8], &scope.region, &scope.service, "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        Zeroizing::new(data_encoding::HEXLOWER.encode(&hmac(&key, to_sign.as_bytes())))
    }

    /// The value of the `Authorization` field.
    fn authorization(&self, keys: &AwsKeys, scope: &Scope, time: &str, signature: &str) -> String {
        let (id, in_scope, names) = (&keys.id, scope.on(&time[..8]), self.names());
        format!("{ALGORITHM} Credential={id}/{in_scope}, SignedHeaders={names}, Signature={signature}")
    }
}

fn hmac(key: &[u8], text: &[u8]) -> Zeroizing<Vec<u8>> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104 section 2)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(text);
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// The text that represents the body in the signature.
fn hash_of(head: &Head, body: Option<&[u8]>, scope: &Scope) -> String {
    if let Some(bytes) = body {
        return sha256_hex(bytes);
    }
    let declared_hash = head.headers.get(CONTENT_SHA256).and_then(|value| value.to_str().ok());
    match declared_hash {
        Some(declared_hash)
            if is_hash(declared_hash) || declared_hash == UNSIGNED || declared_hash == UNSIGNED_TRAILERS =>
        {
            declared_hash.to_owned()
        }
        _ if scope.service == "s3" => UNSIGNED.to_owned(),
        // Any other body was read to its end.
        _ => sha256_hex(b""),
    }
}

/// Returns whether a declared hash is a SHA-256.
pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// SHA-256 in the form of `x-amz-content-sha256`.
fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> AwsKeys {
        let value = b"AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
        AwsKeys::parse(&SecretValue::new(value).unwrap()).unwrap()
    }

    /// From AWS's Signature Version 4 test suite: service `service`, 30 August 2015.
    #[test]
    fn published_vectors_are_reproduced() {
        let empty = sha256_hex(b"");
        let scope = Scope { region: "us-east-1".to_owned(), service: "service".to_owned() };
        let check =
            |method: &str, path: &str, query: &str, more: &[(&str, &str)], body: &str, signature: &str| {
                let mut fields = vec![
                    ("host".to_owned(), "example.amazonaws.com".to_owned()),
                    ("x-amz-date".to_owned(), "20150830T123600Z".to_owned()),
                ];
                fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
                fields.sort();
                let canonical = Canonical {
                    method,
                    path: canonical_path(path, "service"),
                    query: canonical_query(query),
                    fields,
                    body,
                };
                let got = canonical.signature(&keys(), &scope, "20150830T123600Z");
                assert_eq!(got.as_str(), signature, "{method} {path}?{query}");
            };
        check(
            "GET",
            "/",
            "",
            &[],
            &empty,
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        );
        check(
            "POST",
            "/",
            "",
            &[],
            &empty,
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        );
        let ordered = "Param2=value2&Param1=value1";
        check(
            "GET",
            "/",
            ordered,
            &[],
            &empty,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = sha256_hex(b"Param1=value1");
        check(
            "POST",
            "/",
            "",
            &form,
            &body,
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        );
    }

    #[test]
    fn scope_that_does_not_fit_the_host_is_refused() {
        let check = |region: &str, service: &str, host: &str, is_named: bool, expected: bool| {
            let scope = Scope { region: region.to_owned(), service: service.to_owned() };
            let fits = scope.fits(&host.parse().unwrap(), is_named);
            assert_eq!(fits.is_ok(), expected, "{region}/{service} {host} {fits:?}");
        };
        check("eu-central-1", "s3", "b.s3.eu-central-1.amazonaws.com", false, true);
        check("us-east-1", "s3", "b.s3.eu-central-1.amazonaws.com", false, false);
        check("us-east-1", "s3", "b.s3.amazonaws.com", false, true);
        check("us-east-1", "bedrock", "bedrock-runtime.us-east-1.amazonaws.com", false, true);
        check("us-east-1", "iam", "b.s3.amazonaws.com", false, false);
        check("us-east-1", "s3", "iam.amazonaws.com", false, false);
        check("us-east-1", "s3", "sts.us-east-1.amazonaws.com", false, false);
        check("us-east-1", "iam", "iam.us-east-1.s3.amazonaws.com", false, false);
        check("us-east-1", "execute-api", "x.execute-api.us-east-1.amazonaws.com", false, false);
        check("us-east-1", "execute-api", "x.execute-api.us-east-1.amazonaws.com", true, true);
        check("us-east-2", "execute-api", "x.execute-api.us-east-1.amazonaws.com", true, false);
        check("us-east-1", "s3", "minio.test", false, false);
        check("us-east-1", "s3", "minio.test", true, true);
    }

    #[test]
    fn paths_and_queries_are_canonicalised() {
        assert_eq!(canonical_path("/a/./b/../c//d/", "service"), "/a/c/d/");
        assert_eq!(canonical_path("/", "service"), "/");
        assert_eq!(canonical_path("/a%20b:c", "service"), "/a%2520b%3Ac");
        assert_eq!(canonical_path("/bucket/a%20b:c+d/%2Fe//f", "s3"), "/bucket/a%20b%3Ac%2Bd//e//f");
        assert_eq!(canonical_query("b=2&a=%7e1&a=0&c&d=x/y"), "a=0&a=~1&b=2&c=&d=x%2Fy");
    }
}
