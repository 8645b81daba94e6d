//! Why a request is refused, in words that its sender can act on.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal;)*) => {
        /// A refusal's code, as in `x-onecli-error` and the audit's `code`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as text.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// The HTTP status it is answered with (RFC 9110 section 15).
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// The request is not well-formed HTTP, or is one that is never forwarded.
    BadRequest = "bad_request", 400;
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408;
    /// A version of HTTP that is not spoken.
    VersionUnsupported = "version_unsupported", 505;
    /// The head is larger than the bound.
    HeadTooLarge = "head_too_large", 431;
    /// The path is longer, or has more segments, than the bound.
    PathTooLong = "path_too_long", 414;
    /// The body would have to be held in memory, and is larger than the bound.
    BodyTooLarge = "body_too_large", 413;
    /// The request has an `Expect` field with another value than `100-continue`.
    ExpectationFailed = "expectation_failed", 417;
    /// The method is never forwarded (TRACE).
    MethodNotAllowed = "method_not_allowed", 405;
    /// The request asks for an upgrade to a protocol that is not passed on.
    UpgradeUnsupported = "upgrade_unsupported", 501;
    /// Target, SNI and `Host` do not agree.
    Misdirected = "misdirected", 421;
    /// The explicit proxy wants a token.
    ProxyAuthRequired = "proxy_auth_required", 407;
    /// The token is no live token.
    TokenUnknown = "token_unknown", 407;
    /// The token belongs to another agent than the cgroup.
    TokenForeign = "token_foreign", 403;
    /// Too many failed tokens.
    TooManyFailures = "too_many_failures", 429;
    /// The agent requires a factor that this connection does not prove.
    FactorMissing = "factor_missing", 403;
    /// The connection carries no record from the kernel.
    FlowUnknown = "flow_unknown", 403;
    /// The cgroup belongs to no agent.
    AgentUnknown = "agent_unknown", 403;
    /// The agent is disabled.
    AgentDisabled = "agent_disabled", 403;
    /// What a request or stream under way rested on was taken back.
    Revoked = "revoked", 403;
    /// No grant or rule allows the host or the request.
    EgressDenied = "egress_denied", 403;
    /// A rule denies it.
    RuleDenied = "rule_denied", 403;
    /// A rule's limit is used up.
    RateLimited = "rate_limited", 429;
    /// A person was asked, and said no.
    ApprovalDenied = "approval_denied", 403;
    /// A person was asked, and did not answer in time.
    ApprovalTimeout = "approval_timeout", 403;
    /// As many requests of the agent wait for a person as may.
    ApprovalsFull = "approvals_full", 429;
    /// The path means different things to different servers, and a path pattern would have to judge it.
    PathAmbiguous = "path_ambiguous", 403;
    /// The request would make a fresh credential, which the agent would then have.
    CredentialEndpoint = "credential_endpoint", 403;
    /// The agent must present the secret's placeholder here.
    PlaceholderMissing = "placeholder_missing", 401;
    /// A placeholder that is not one of this agent's.
    PlaceholderForeign = "placeholder_foreign", 403;
    /// A placeholder at a host its secret is not for.
    PlaceholderMisplaced = "placeholder_misplaced", 403;
    /// A sealed session that another agent received.
    SessionForeign = "session_foreign", 403;
    /// The secret would leave in the clear.
    PlaintextRefused = "plaintext_refused", 403;
    /// Every address of the host is in a blocked range.
    AddressBlocked = "address_blocked", 403;
    /// The kernel programs refused an operation (EPERM); no HTTP was spoken.
    KernelDenied = "kernel_denied", 403;
    /// The bytes are neither TLS nor HTTP, and nothing allows them.
    ProtocolDenied = "protocol_denied", 403;
    /// A bound of this agent is used up.
    LimitReached = "limit_reached", 429;
    /// Newer connections took the place of one that had not said who it is.
    TooManyConnections = "too_many_connections", 503;
    /// The name does not resolve.
    UpstreamResolve = "upstream_resolve", 502;
    /// No connection to the upstream.
    UpstreamConnect = "upstream_connect", 502;
    /// The upstream's certificate is not valid for the host.
    UpstreamTls = "upstream_tls", 502;
    /// The upstream's answer broke off or is not HTTP.
    UpstreamProtocol = "upstream_protocol", 502;
    /// The upstream was too slow.
    UpstreamTimeout = "upstream_timeout", 504;
    /// The secret could not be decrypted.
    SecretUnavailable = "secret_unavailable", 502;
    /// A response held a value that the request did not send. It was masked.
    SecretReturned = "secret_returned", 502;
    /// A response held a value that the request did not send, after too many of them. It was cut off.
    ResponseWithheld = "response_withheld", 502;
    /// A response held a credential that the service issued. The audit says whether it was masked.
    CredentialIssued = "credential_issued", 502;
    /// The audit log cannot be written.
    AuditUnavailable = "audit_unavailable", 503;
    /// The agent's part of the audit log is used up for now.
    AuditQuota = "audit_quota", 429;
    /// The TLS handshake of the client failed.
    ClientTls = "client_tls", 400;
    /// The client went away before the answer was complete.
    ClientGone = "client_gone", 499;
    /// The daemon stopped, or was killed, before the answer was complete.
    Interrupted = "interrupted", 503;
    /// A fault of ours.
    Internal = "internal", 500;
}

impl Code {
    /// Is it a sign of an attack, for the audit's `alert` event?
    pub fn is_alert(self) -> bool {
        matches!(
            self,
            Code::TokenForeign
                | Code::PlaceholderForeign
                | Code::PlaceholderMisplaced
                | Code::SecretReturned
                | Code::CredentialIssued
                | Code::SessionForeign
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A refusal: a code, what happened, and what to do about it. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// What happened.
    pub message: Cow<'static, str>,
    /// What to do next.
    pub hint: Cow<'static, str>,
    /// How a 401 asks for credentials; `Bearer` where nothing is said.
    pub challenge: Option<Challenge>,
    /// The rule or default that refused, for the audit: `deny 7`.
    pub rule: Option<Cow<'static, str>>,
    /// When it may be tried again (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
}

/// The scheme that a 401 asks for (RFC 9110 section 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 7617; git only sends a password after it was asked so.
    Basic,
    /// RFC 6750.
    Bearer,
}

impl Refusal {
    /// A refusal with its message and hint.
    pub fn new(
        code: Code,
        message: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Refusal {
        Refusal {
            code,
            message: message.into(),
            hint: hint.into(),
            challenge: None,
            rule: None,
            retry_after: None,
        }
    }

    /// The same, refused by this rule or default.
    #[must_use]
    pub fn by(self, rule: impl fmt::Display) -> Refusal {
        Refusal { rule: Some(Cow::Owned(rule.to_string())), ..self }
    }
}
