//! `GET /v1/running`: agents that have processes or connections.

use onecli_api::RunningAgent;

use crate::context::AdminContext;
use crate::error::AdminError;

/// Returns the agents that run now, sorted by name.
pub(crate) async fn list(context: &AdminContext) -> Result<Vec<RunningAgent>, AdminError> {
    let host = &context.handles.host;
    let mut running = Vec::new();
    for agent in context.load().await?.agents.into_iter().map(|stored| stored.agent) {
        let processes = host.processes(&agent.cgroup).map_err(AdminError::Host)?;
        let connections = host.connections(agent.id);
        if processes.count > 0 || connections > 0 {
            running.push(RunningAgent {
                agent: agent.name,
                cgroup: agent.cgroup,
                processes: processes.count,
                uids: processes.uids,
                since: processes.since,
                connections,
            });
        }
    }
    Ok(running)
}
