//! `onecli approval watch`.

use std::collections::BTreeMap;
use std::time::Duration;

use onecli_api::{ApprovalEvent, ApprovalOutcome, ApprovalView, routes};
use onecli_model::printable;

use super::request::request;
use crate::client::{Client, ClientError};
use crate::error::CliError;
use crate::output::{Output, joined, print_error};

/// The pause before the next attempt to connect after the daemon has disconnected.
const RETRY: Duration = Duration::from_secs(1);

/// Prints events until it is interrupted or the output is closed.
pub(super) fn watch(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let mut watched = PendingRequests::default();
    loop {
        let ended = client.lines(routes::APPROVALS_WATCH, |line| watched.take(line, output));
        match ended {
            Err(CliError::Client(error)) if error.is_disconnected() && watched.was_connected => {}
            Err(error) => return Err(error),
            // The daemon stopped, or the output was too slow for the events.
            Ok(()) => {}
        }
        watched.disconnected();
        std::thread::sleep(RETRY);
    }
}

/// The known pending requests.
#[derive(Default)]
struct PendingRequests {
    /// The printed pending requests, by id.
    open: BTreeMap<String, ApprovalView>,
    /// The ids that the daemon has reported since the last connection; `None` after it has reported all.
    reported: Option<Vec<String>>,
    was_connected: bool,
    is_connected: bool,
}

impl PendingRequests {
    fn take(&mut self, line: &[u8], output: &mut Output) -> Result<(), CliError> {
        if !self.is_connected {
            if self.was_connected {
                print_error(&"reconnected to the daemon");
            }
            (self.is_connected, self.was_connected, self.reported) = (true, true, Some(Vec::new()));
        }
        let event = serde_json::from_slice(line).map_err(ClientError::from)?;
        for event in self.note(event) {
            print(&event, &self.open, output)?;
            if let ApprovalEvent::Ended { id, .. } = &event {
                self.open.remove(id);
            }
        }
        Ok(output.finish()?)
    }

    /// Returns the events to print, so that each request is printed once even if the daemon reports it again.
    fn note(&mut self, event: ApprovalEvent) -> Vec<ApprovalEvent> {
        match event {
            ApprovalEvent::Waiting(view) => {
                self.reported.iter_mut().for_each(|reported| reported.push(view.id.clone()));
                let is_new = self.open.insert(view.id.clone(), (*view).clone()).is_none();
                if is_new { vec![ApprovalEvent::Waiting(view)] } else { Vec::new() }
            }
            ApprovalEvent::Ready => {
                let reported = self.reported.take().unwrap_or_default();
                let gone = self.open.keys().filter(|id| !reported.contains(id));
                let outcome = ApprovalOutcome::DaemonStopped;
                let gone = gone.map(|id| ApprovalEvent::Ended { id: id.clone(), outcome, uid: None });
                gone.chain([ApprovalEvent::Ready]).collect()
            }
            ended @ ApprovalEvent::Ended { .. } => vec![ended],
        }
    }

    fn disconnected(&mut self) {
        if std::mem::take(&mut self.is_connected) {
            print_error(&"lost the connection to the daemon; waiting for its return");
        }
    }
}

fn print(
    event: &ApprovalEvent,
    open: &BTreeMap<String, ApprovalView>,
    output: &mut Output,
) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.record(&serde_json::to_vec(event)?)?);
    }
    match event {
        ApprovalEvent::Ready => Ok(()),
        ApprovalEvent::Waiting(view) => Ok(output.line(&waiting(view, &output.time(view.until)))?),
        ApprovalEvent::Ended { id, outcome, uid } => {
            let by = uid.map(|uid| format!(" by uid {uid}")).unwrap_or_default();
            let request = open.get(id).map(|view| format!(": {}", described(view))).unwrap_or_default();
            Ok(output.line(&format!("{} is {}{by}{request}", printable(id), outcome.as_str()))?)
        }
    }
}

/// Formats a pending request. `until` is the time at which the daemon refuses it.
fn waiting(view: &ApprovalView, until: &str) -> String {
    let secrets = joined(&view.secrets, "none");
    let described = described(view);
    format!(
        "{} is pending, and is refused {until}: {described} (rule {}, secrets: {secrets})",
        view.id, view.rule
    )
}

/// Formats a request on one line, whatever the agent sent.
fn described(view: &ApprovalView) -> String {
    format!("agent '{}', {}", view.agent, printable(&request(view)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str) -> ApprovalView {
        let json = serde_json::json!({
            "id": id, "agent": "coder", "rule": 7, "request_id": "0198c5a2-0000-7000-8000-000000000001",
            "method": "POST", "authority": "api.test", "path": "/v1", "query": "x=\u{7}\n1", "secrets": ["api"],
            "digest": "00", "since": "2026-01-02T03:04:05Z", "until": "2026-01-02T03:06:05Z",
        });
        serde_json::from_value(json).unwrap()
    }

    fn event_names(events: &[ApprovalEvent]) -> Vec<String> {
        let name = |event: &ApprovalEvent| match event {
            ApprovalEvent::Waiting(view) => view.id.clone(),
            ApprovalEvent::Ready => "ready".to_owned(),
            ApprovalEvent::Ended { id, outcome, .. } => format!("{id} {}", outcome.as_str()),
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn each_request_is_printed_once_and_ends_once() {
        let mut watched = PendingRequests { reported: Some(Vec::new()), ..PendingRequests::default() };
        let waits = |id| ApprovalEvent::Waiting(view(id).into());
        assert_eq!(event_names(&watched.note(waits("a"))), ["a"]);
        assert_eq!(event_names(&watched.note(ApprovalEvent::Ready)), ["ready"]);
        assert_eq!(event_names(&watched.note(waits("b"))), ["b"]);
        // A restarted daemon, or the same daemon after a slow client: `a` is still pending, `b` is not.
        watched.reported = Some(Vec::new());
        assert_eq!(event_names(&watched.note(waits("a"))), [""; 0]);
        let gone = format!("b {}", ApprovalOutcome::DaemonStopped.as_str());
        assert_eq!(event_names(&watched.note(ApprovalEvent::Ready)), [gone.as_str(), "ready"]);
    }

    #[test]
    fn agent_cannot_drive_the_terminal() {
        let line = waiting(&view("3f9c02d1ab"), "in 2 minutes");
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        assert!(line.contains(r"POST api.test/v1?x=\u{7}\n1"), "{line}");
    }
}
