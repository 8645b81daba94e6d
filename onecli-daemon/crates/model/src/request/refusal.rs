//! Refusals: the reason, with a text that the sender of the request can act on.

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

            /// Returns the code as text.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// Returns the HTTP status of the response (RFC 9110 section 15).
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
    /// The version of HTTP is not supported.
    VersionUnsupported = "version_unsupported", 505;
    /// The head is larger than the limit.
    HeadTooLarge = "head_too_large", 431;
    /// The path is longer, or has more segments, than the limit.
    PathTooLong = "path_too_long", 414;
    /// The body would have to be held in memory, and is larger than the limit.
    BodyTooLarge = "body_too_large", 413;
    /// The request has an `Expect` field with a value other than `100-continue`.
    ExpectationFailed = "expectation_failed", 417;
    /// The method is never forwarded (TRACE).
    MethodNotAllowed = "method_not_allowed", 405;
    /// The request asks for an upgrade to a protocol that is not passed on.
    UpgradeUnsupported = "upgrade_unsupported", 501;
    /// Target, SNI and `Host` do not agree.
    Misdirected = "misdirected", 421;
    /// The explicit proxy requires a token.
    ProxyAuthRequired = "proxy_auth_required", 407;
    /// The token is unknown or expired.
    TokenUnknown = "token_unknown", 407;
    /// The token belongs to another agent than the cgroup.
    TokenForeign = "token_foreign", 403;
    /// Too many attempts with invalid tokens.
    TooManyFailures = "too_many_failures", 429;
    /// The agent requires a factor that this connection does not prove.
    FactorMissing = "factor_missing", 403;
    /// The connection has no record from the kernel.
    FlowUnknown = "flow_unknown", 403;
    /// The cgroup belongs to no agent.
    AgentUnknown = "agent_unknown", 403;
    /// The agent is disabled.
    AgentDisabled = "agent_disabled", 403;
    /// The permission for a request or stream in progress was revoked.
    Revoked = "revoked", 403;
    /// No grant or rule allows the host or the request.
    EgressDenied = "egress_denied", 403;
    /// A rule denies the request.
    RuleDenied = "rule_denied", 403;
    /// A rule's limit is used up.
    RateLimited = "rate_limited", 429;
    /// An approver denied the request.
    ApprovalDenied = "approval_denied", 403;
    /// No approver answered in time.
    ApprovalTimeout = "approval_timeout", 403;
    /// The agent has the maximum number of requests that wait for approval.
    ApprovalsFull = "approvals_full", 429;
    /// Servers read the path in different ways, and a path pattern would have to judge it.
    PathAmbiguous = "path_ambiguous", 403;
    /// The request would issue a new credential to the agent.
    CredentialEndpoint = "credential_endpoint", 403;
    /// The agent must present the secret's placeholder here.
    PlaceholderMissing = "placeholder_missing", 401;
    /// The placeholder belongs to another agent.
    PlaceholderForeign = "placeholder_foreign", 403;
    /// The placeholder's secret is not for this host.
    PlaceholderMisplaced = "placeholder_misplaced", 403;
    /// The sealed session was issued to another agent.
    SessionForeign = "session_foreign", 403;
    /// The secret would be sent over plain HTTP.
    PlaintextRefused = "plaintext_refused", 403;
    /// Every address of the host is in a blocked range.
    AddressBlocked = "address_blocked", 403;
    /// The kernel programs refused an operation (EPERM); no HTTP was spoken.
    KernelDenied = "kernel_denied", 403;
    /// The bytes are neither TLS nor HTTP, and nothing allows them.
    ProtocolDenied = "protocol_denied", 403;
    /// A limit of this agent is reached.
    LimitReached = "limit_reached", 429;
    /// Newer connections replaced one that had not yet identified its agent.
    TooManyConnections = "too_many_connections", 503;
    /// The name does not resolve.
    UpstreamResolve = "upstream_resolve", 502;
    /// No connection to the upstream could be established.
    UpstreamConnect = "upstream_connect", 502;
    /// The upstream's certificate is not valid for the host.
    UpstreamTls = "upstream_tls", 502;
    /// The upstream's response ended early or is not HTTP.
    UpstreamProtocol = "upstream_protocol", 502;
    /// The upstream was too slow.
    UpstreamTimeout = "upstream_timeout", 504;
    /// The secret could not be decrypted.
    SecretUnavailable = "secret_unavailable", 502;
    /// A response contained a value that the request did not send. The value was masked.
    SecretReturned = "secret_returned", 502;
    /// A response contained a value that the request did not send, after too many such values. The response was cut
    /// off.
    ResponseWithheld = "response_withheld", 502;
    /// A response contained a credential that the service issued. The audit record states whether it was masked.
    CredentialIssued = "credential_issued", 502;
    /// The audit log cannot be written.
    AuditUnavailable = "audit_unavailable", 503;
    /// The agent's quota of the audit log is used up for now.
    AuditQuota = "audit_quota", 429;
    /// The TLS handshake of the client failed.
    ClientTls = "client_tls", 400;
    /// The client disconnected before the response was complete.
    ClientGone = "client_gone", 499;
    /// The daemon stopped, or was killed, before the response was complete.
    Interrupted = "interrupted", 503;
    /// An internal error of the daemon.
    Internal = "internal", 500;
}

impl Code {
    /// Returns whether the code is a sign of an attack, for the audit's `alert` event.
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

/// A refusal: a code, the reason, and the next step. Never contains a secret value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The reason.
    pub message: Cow<'static, str>,
    /// The next step.
    pub hint: Cow<'static, str>,
    /// The scheme in which a 401 requests credentials. The default is `Bearer`.
    pub challenge: Option<Challenge>,
    /// The rule or default that refused, for the audit: `deny 7`.
    pub rule: Option<Cow<'static, str>>,
    /// The time after which a retry may succeed (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
}

/// The scheme that a 401 requests (RFC 9110 section 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 7617. git sends a password only after such a request.
    Basic,
    /// RFC 6750.
    Bearer,
}

impl Refusal {
    /// Returns a refusal with its message and hint.
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

    /// Sets the rule or default that refused.
    #[must_use]
    pub fn by(self, rule: impl fmt::Display) -> Refusal {
        Refusal { rule: Some(Cow::Owned(rule.to_string())), ..self }
    }
}
