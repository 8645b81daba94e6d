//! A summary of an agent's refusals since a point in time, for the end of `onecli run`.

use std::net::SocketAddr;

use jiff::Timestamp;
use onecli_api::{Refusals, RefusedTarget};
use onecli_model::{AgentName, Code, Host};
use serde::Deserialize;

use super::audit::catch_up;
use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

/// The number of newest refusals to read.
const MAX_REFUSALS: u32 = 1_000;
/// The number of targets to name; further targets are only counted.
const MAX_TARGETS: usize = 5;
/// The DNS port, which the record of a query contains.
const DNS: u16 = 53;

/// The fields of a record that matter here.
#[derive(Deserialize)]
struct RefusalRecord {
    code: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    address: Option<String>,
    rule: Option<String>,
}

impl RefusalRecord {
    /// Returns host and port, or those of the address if the client named no host, as database clients do.
    fn target(&self) -> (String, Option<u16>) {
        let address: Option<SocketAddr> = self.address.as_deref().and_then(|address| address.parse().ok());
        match (&self.host, address) {
            (None, Some(address)) => (Host::from(address.ip()).to_string(), Some(address.port())),
            (host, _) => (host.clone().unwrap_or_default(), self.port),
        }
    }

    /// Returns whether the refusal matters to the operator. Excluded are disconnected clients and lookups that programs
    /// make by themselves: names without a dot, reverse names, and the UDP connect with which getaddrinfo(3) probes a
    /// route without sending data.
    fn is_of_interest(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        if code == Code::ClientGone.as_str() || code == Code::Interrupted.as_str() {
            return false;
        }
        let host = self.host.as_deref().unwrap_or_default();
        let is_own_query =
            self.port == Some(DNS) && (!host.contains('.') || host.rsplit('.').next() == Some("arpa"));
        let rule = self.rule.as_deref().unwrap_or_default();
        let is_probe = rule.starts_with("kernel connect") && rule.ends_with("udp");
        !is_own_query && !is_probe
    }
}

/// Returns the agent's refusals since the time in `query`, for commands of the uid in `query`. DNS queries have no
/// known uid and are listed for each run.
pub(crate) async fn list(
    context: &AdminContext,
    name: &AgentName,
    query: &str,
) -> Result<Refusals, AdminError> {
    let (since, launched_by) = read(query)
        .ok_or_else(|| AdminError::Invalid("the query must be since=TIME&launched_by=UID".to_owned()))?;
    let agent = context.load().await?.agent(name)?.clone();
    context.handles.host.record_waiting(agent.id).await;
    catch_up(&context.handles.audit).await;
    let query = onecli_store::AuditQuery {
        agent: Some(agent.name.to_string()),
        verdict: Some("deny".to_owned()),
        since: Some(since),
        not_by_others: Some(launched_by),
        limit: MAX_REFUSALS,
        newest_first: true,
        ..onecli_store::AuditQuery::default()
    };
    let rows = context.handles.store.list_audit(&query).await?;
    Ok(summary(rows.iter().rev().filter_map(|row| serde_json::from_str(&row.json).ok())))
}

fn read(query: &str) -> Option<(Timestamp, u32)> {
    let (since, uid) = query.strip_prefix("since=")?.split_once("&launched_by=")?;
    Some((since.parse().ok()?, uid.parse().ok()?))
}

/// Lists each target once, with the code of its first refusal.
fn summary(refused: impl Iterator<Item = RefusalRecord>) -> Refusals {
    let mut targets: Vec<RefusedTarget> = Vec::new();
    for refused in refused.filter(RefusalRecord::is_of_interest) {
        let (host, port) = refused.target();
        let code = refused.code.unwrap_or_default();
        // The port of a DNS query is not the port that the agent wanted.
        let port = port.filter(|port| *port != DNS);
        if !targets.iter().any(|target| target.host == host && target.port == port) {
            targets.push(RefusedTarget { host, port, code });
        }
    }
    let others = targets.len().saturating_sub(MAX_TARGETS);
    targets.truncate(MAX_TARGETS);
    Refusals { targets, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_without_a_host_is_named_by_its_address() {
        let json = r#"{"code":"protocol_denied","address":"192.0.2.7:6379"}"#;
        let refusals = summary(std::iter::once(serde_json::from_str(json).unwrap()));
        let targets: Vec<_> = refusals.targets.into_iter().map(|t| (t.host, t.port, t.code)).collect();
        assert_eq!(targets, [("192.0.2.7".to_owned(), Some(6379), "protocol_denied".to_owned())]);
    }

    #[test]
    fn summary_names_each_target_once_and_counts_the_rest() {
        let record = |json: &str| serde_json::from_str::<RefusalRecord>(json).unwrap();
        let mut records = vec![
            record(r#"{"code":"egress_denied","host":"a.test","port":443,"path":"/1"}"#),
            record(r#"{"code":"egress_denied","host":"a.test","port":443,"path":"/2","count":9}"#),
            record(r#"{"code":"egress_denied","host":"b.test","port":53}"#),
            record(r#"{"code":"client_gone","host":"gone.test","port":443}"#),
            record(r#"{"code":"egress_denied","host":"single","port":53}"#),
            record(r#"{"code":"egress_denied","host":"7.2.0.192.in-addr.arpa","port":53}"#),
            record(r#"{"code":"kernel_denied","host":"192.0.2.1","port":443,"rule":"kernel connect4 udp"}"#),
            record(r#"{"code":"kernel_denied","host":"192.0.2.1","port":123,"rule":"kernel sendmsg4 udp"}"#),
        ];
        let target = |host: &str, port, code: &str| RefusedTarget {
            host: host.to_owned(),
            port,
            code: code.to_owned(),
        };
        let expected = [
            target("a.test", Some(443), "egress_denied"),
            target("b.test", None, "egress_denied"),
            target("192.0.2.1", Some(123), "kernel_denied"),
        ];
        records.extend(
            (0..40).map(|n| record(&format!(r#"{{"code":"several","host":"n{n}.test","port":80}}"#))),
        );
        let refusals = summary(records.into_iter());
        assert_eq!(refusals.targets[..3], expected);
        assert_eq!((refusals.targets.len(), refusals.others), (MAX_TARGETS, 38));
    }
}
