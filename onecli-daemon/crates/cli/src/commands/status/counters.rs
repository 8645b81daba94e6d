//! Descriptions of the counters of `onecli status`.

/// Names and meanings. Counters start at 0 with the daemon. `kernel_` counters belong to the eBPF programs and start
/// when these are loaded.
const MEANINGS: [(&str, &str); 21] = [
    ("connections", "connections accepted"),
    ("requests_injected", "requests forwarded with a credential"),
    ("requests_forwarded", "requests forwarded without a credential"),
    ("requests_denied", "requests and connections refused"),
    ("tunnels", "connections passed uninspected"),
    ("scrub_hits", "credentials masked in responses"),
    ("kernel_sockets_created", "sockets that agents created"),
    ("kernel_connections_redirected", "connections redirected to the daemon"),
    ("kernel_connections_announced", "connection attempts announced to the daemon, with retransmissions"),
    ("kernel_announcements_failed", "announcements that failed: the agent's connection is refused"),
    ("kernel_dns_rewritten", "DNS queries sent to the daemon's resolver"),
    ("kernel_operations_denied", "operations refused by the kernel"),
    ("kernel_deny_events_lost", "refusals by the kernel that are not in the audit log"),
    ("kernel_connections_to_own_listeners", "connections of an agent to its own listener"),
    ("kernel_connections_unserved", "connections refused because no daemon listened"),
    (
        "kernel_connections_to_foreign_listener",
        "connections refused because another program uses the daemon's port",
    ),
    ("kernel_packets_dropped", "packets of agents that were dropped"),
    (
        "kernel_connections_held",
        "connection attempts delayed: the agent has too many, or no daemon listens yet",
    ),
    ("kernel_packets_kept_out", "packets from other hosts that agents did not get"),
    ("kernel_connections_identified", "redirected connections whose agent is known"),
    ("kernel_connections_unidentified", "redirected connections refused because their agent is not known"),
];

/// Returns the description; empty for a counter of a newer daemon.
pub(super) fn meaning(name: &str) -> &'static str {
    MEANINGS.iter().find(|(known, _)| *known == name).map_or("", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use onecli_common::Stat;

    use super::*;

    #[test]
    fn every_counter_has_a_description() {
        let gateway = onecli_proxy::Counters::default().snapshot();
        let kernel = Stat::ALL.map(|stat| format!("kernel_{}", stat.name()));
        let names: Vec<String> = gateway.into_iter().map(|(name, _)| name.to_owned()).chain(kernel).collect();
        for name in &names {
            assert!(!meaning(name).is_empty(), "{name}");
        }
        // Plus the two connection counters.
        assert_eq!(names.len() + 2, MEANINGS.len());
    }
}
