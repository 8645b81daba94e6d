//! The fields of a record. A new field is one entry here: its column in exports, its attribute in OCSF events and its
//! row in the reference derive from it.

use onecli_model::{AgentName, Factors, RequestId};
use serde::de::Error;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::field::{Field, Ocsf};
use super::record::{ConnectionMode, Event, Verdict};
use crate::text::Text;

record_fields! {
    /// The request. It is absent only if the log reports about itself.
    common request_id: RequestId = "00000000-0000-0000-0000-000000000001" => [Ocsf::Copy("/metadata/correlation_uid"), Ocsf::Copy("/http_request/uid")];
    /// Decision, outcome, alert or approval.
    always event: Event = "decision" => [Ocsf::Derived("/is_alert")];
    /// The agent that sent the request.
    common agent: AgentName = "one" => [Ocsf::Copy("/actor/app_name"), Ocsf::Copy("/src_endpoint/name")];
    /// The identity factors that the agent proved.
    common factors: Factors = "token+cgroup" => [];
    /// How the connection reached the daemon.
    common mode: ConnectionMode = "transparent" => [];
    /// The method (RFC 9110 section 9).
    http method: Text = "POST" => [Ocsf::Derived("/http_request/http_method")];
    /// The host in canonical form, or the original text if it has no canonical form.
    common host: Text = "api.example.com" => [Ocsf::Derived("/dst_endpoint/hostname"), Ocsf::Derived("/http_request/url/hostname")];
    /// The port.
    common port: u16 = 443 => [Ocsf::Copy("/dst_endpoint/port"), Ocsf::Copy("/http_request/url/port")];
    /// The canonical path, without query.
    http path: Text = "/v1/chat" => [Ocsf::Copy("/http_request/url/path")];
    /// The address that was dialled or that the agent requested.
    common address: Text = "192.0.2.7:443" => [];
    /// The rule or default that decided.
    common rule: Text = "grant openai" => [];
    /// The secret that is injected. If a request has several slots, all of them as `NAME@VERSION`, joined by
    /// commas.
    common secret: Text = "openai" => [];
    /// The version of the secret.
    common secret_version: u32 = 3 => [];
    /// The source of the value, if the store does not contain it: `vault@3` (the version), `vault stale` (a value
    /// cached before the server failed), `file`. It is part of the outcome.
    common backend: Text = "vault@3" => [];
    /// The decision.
    common verdict: Verdict = "inject" => [Ocsf::Derived("/action_id"), Ocsf::Derived("/disposition_id")];
    /// The reason for the refusal, or for the failure.
    common code: Text = "interrupted" => [Ocsf::Copy("/status_code")];
    /// The status of the response.
    common status: u16 = 200 => [Ocsf::Copy("/http_response/code")];
    /// Body bytes from the agent.
    common bytes_in: u64 = 10 => [Ocsf::Copy("/traffic/bytes_in")];
    /// Body bytes to the agent.
    common bytes_out: u64 = 20 => [Ocsf::Copy("/traffic/bytes_out")];
    /// The time from the request's head to the end of its response, in microseconds.
    common duration_us: u64 = 1234 => [Ocsf::Milliseconds("/duration")];
    /// TLS version towards the upstream.
    common tls: Text = "1.3" => [];
    /// The protocol that ALPN agreed on with the upstream.
    http alpn: Text = "h2" => [];
    /// How often the value was scrubbed from the response.
    common scrub_hits: u64 = 0 => [];
    /// Session counts (cookies, session headers) of this request: `opened` and `removed` in the request, `sealed`
    /// and `dropped` in the response.
    http sessions: Text = "opened 1, sealed 1" => [];
    /// The agent's managed cgroup.
    common cgroup: Text = "onecli-agents-one.slice" => [];
    /// The kernel's id of that cgroup.
    common cgroup_id: u64 = 77 => [];
    /// The cookie of the network namespace.
    common netns: u64 = 18446744073709551615 => [];
    /// The user id of the connecting process.
    common uid: u32 = 1000 => [Ocsf::Text("/actor/user/uid")];
    /// The process id of the connecting process.
    common pid: u32 = 4242 => [Ocsf::Copy("/actor/process/pid")];
    /// The process's name according to the kernel. A process can choose it freely.
    common comm: Text = "curl" => [Ocsf::Copy("/actor/process/name")];
    /// The user id of the user whose `onecli run` started the requesting command. It comes from the cgroup of that
    /// command, or from the session token that the daemon minted for it. For an agent's own token it is absent.
    common launched_by: u32 = 1001 => [];
    /// The approval that the request waited for.
    common approval: Text = "3f9c02d1ab" => [];
    /// SHA-256 over the head of the request that the approval applies to.
    common approval_digest: Text = "00ff" => [];
    /// The user id of the approver.
    common approval_uid: u32 = 1000 => [];
    /// The number of things that this record describes, if it is not one.
    common count: u64 = 1 => [Ocsf::Copy("/count")];
}
