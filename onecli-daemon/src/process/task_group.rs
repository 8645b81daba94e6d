//! Named tasks of one kind, whose end is noticed.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

/// Tasks that run together.
#[derive(Debug, Default)]
pub(crate) struct TaskGroup {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// The unexpected end of a task.
#[derive(Debug, thiserror::Error)]
#[error("the task '{name}' {how}")]
pub(crate) struct TaskEnded {
    name: &'static str,
    how: String,
}

impl TaskGroup {
    /// Starts a task. `name` appears in the error if it ends too early.
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Resolves when the first task ends; never for an empty group.
    pub(crate) async fn ended(&mut self) -> TaskEnded {
        let (id, how) = match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => (id, "ended too early".to_owned()),
            Some(Err(error)) => (error.id(), how(error)),
        };
        TaskEnded { name: self.names.remove(&id).unwrap_or("unnamed"), how }
    }

    /// Resolves when the first task panics; never if all tasks end regularly.
    pub(crate) async fn panicked(&mut self) -> TaskEnded {
        loop {
            match self.tasks.join_next_with_id().await {
                None => std::future::pending().await,
                Some(Ok((id, ()))) => _ = self.names.remove(&id),
                Some(Err(error)) => {
                    let name = self.names.remove(&error.id()).unwrap_or("unnamed");
                    return TaskEnded { name, how: how(error) };
                }
            }
        }
    }

    /// Aborts every task.
    pub(crate) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// Waits until every task has ended.
    pub(crate) async fn drain(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The text of a panic, or of a cancellation.
fn how(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            format!("panicked: {text}")
        }
        Err(error) => format!("failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn end_of_a_task_is_reported_by_name() {
        let mut group = TaskGroup::default();
        group.spawn("endless", std::future::pending());
        group.spawn("short", async {});
        assert_eq!(group.ended().await.to_string(), "the task 'short' ended too early");
        group.spawn("broken", async { panic!("no {}", "luck") });
        assert_eq!(group.ended().await.to_string(), "the task 'broken' panicked: no luck");
        group.abort();
        group.drain().await;
    }

    #[tokio::test]
    async fn regular_end_is_no_panic() {
        let mut group = TaskGroup::default();
        group.spawn("short", async {});
        group.spawn("broken", async { panic!("no luck") });
        assert_eq!(group.panicked().await.to_string(), "the task 'broken' panicked: no luck");
    }
}
