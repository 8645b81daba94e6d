//! Alerts of the audit log, copied to the log of the daemon itself, which operators monitor.
//!
//! A separate thread writes them: a log collector may be slow, and requests wait for the audit log.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use super::fields::Record;
use super::record::Event;

/// The number of alerts that wait to be written. Further ones are counted; the audit log contains them all.
const QUEUE_CAPACITY: usize = 256;
/// How long the end of the log waits for the queued alerts.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The tracing target of these events, so that a separate log can collect them.
pub const TARGET: &str = "onecli::alert";

/// Writes alerts.
#[derive(Debug)]
pub(super) struct Alerts {
    queue: Option<SyncSender<QueuedAlert>>,
    ended: Receiver<()>,
    missed: u64,
}

enum QueuedAlert {
    Alert(u64, Box<Record>),
    Missed(u64),
}

impl Alerts {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub(super) fn start() -> io::Result<Alerts> {
        let (queue, alerts) = mpsc::sync_channel(QUEUE_CAPACITY);
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::Builder::new().name("alerts".to_owned()).spawn(move || {
            for queued in alerts {
                write(&queued);
            }
            drop(alive);
        })?;
        Ok(Alerts { queue: Some(queue), ended, missed: 0 })
    }

    /// Queues the record with number `seq`, if it is an alert. Never waits.
    pub(super) fn raise(&mut self, seq: u64, record: &Record) {
        let Some(queue) = self.queue.as_ref().filter(|_| record.event == Event::Alert) else { return };
        if self.missed > 0 && queue.try_send(QueuedAlert::Missed(self.missed)).is_ok() {
            self.missed = 0;
        }
        if queue.try_send(QueuedAlert::Alert(seq, Box::new(record.clone()))).is_err() {
            self.missed += 1;
        }
    }
}

impl Drop for Alerts {
    fn drop(&mut self) {
        self.queue = None;
        // The time elapsed, or the thread has ended. Unwritten alerts are in the audit log.
        let _ = self.ended.recv_timeout(DRAIN_TIMEOUT);
    }
}

/// Writes neither a value nor a path, because an agent may put anything into a path. Every text is escaped and
/// bounded by [`super::Text`].
fn write(queued: &QueuedAlert) {
    let (seq, record) = match queued {
        QueuedAlert::Alert(seq, record) => (*seq, record),
        QueuedAlert::Missed(count) => {
            return tracing::warn!(target: TARGET, count, "the alert queue was full: these alerts are only in the audit log");
        }
    };
    let text = |text: &Option<super::Text>| text.as_ref().map(|text| text.as_str().to_owned());
    let reason = text(&record.code).unwrap_or_default();
    let (agent, host) = (record.agent.as_ref().map(ToString::to_string), text(&record.host));
    let message = describe(&reason, agent.as_deref(), host.as_deref(), seq);
    tracing::warn!(
        target: TARGET,
        reason,
        agent,
        host,
        port = record.port,
        rule = text(&record.rule),
        secret = text(&record.secret),
        verdict = record.verdict.map(super::Verdict::as_str),
        launched_by = record.launched_by,
        count = record.count,
        record = seq,
        request_id = record.request_id.map(|id| id.to_string()),
        "{message}"
    );
}

fn describe(reason: &str, agent: Option<&str>, host: Option<&str>, seq: u64) -> String {
    let agent = agent.map(|agent| format!(" by agent '{agent}'")).unwrap_or_default();
    let host = host.map(|host| format!(" for {host}")).unwrap_or_default();
    format!("alert: {reason}{agent}{host}, audit record {seq}")
}
