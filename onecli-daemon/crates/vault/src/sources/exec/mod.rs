//! Values printed by commands on the daemon's host.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{Clock, SecretValue, SourceCommand};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::sources::cache::fetch_cache::{Bounds, Expiring, FetchCache};

/// The bounds of the cache of command values.
const KEPT: Bounds = Bounds { keys: NonZeroUsize::new(1024).unwrap(), bytes: 4 << 20 };
/// How long a value is used if the command prints no expiry.
const UNTOLD: Duration = Duration::from_secs(30);
/// The longest time that a value is used, even if the command prints a later expiry.
const LONGEST: Duration = Duration::from_hours(24);
/// How long before its expiry a value is discarded; a fifth of its lifetime if that is shorter.
const EARLY: Duration = Duration::from_mins(1);

/// Runs commands outside this process, which may not run them: as an unprivileged user, with a clean environment,
/// bounds on time and output, and no shell.
#[async_trait]
pub trait Executor: std::fmt::Debug + Send + Sync {
    /// Returns the output of a command that exited successfully.
    ///
    /// # Errors
    /// The reason, as a part of a sentence about the command. It never contains the output.
    async fn run(&self, command: &SourceCommand) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// The reason why a command returned no value. It names the program, but not its arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the value from the command {program}: {reason}")]
pub struct ExecError {
    program: String,
    reason: String,
}

/// Values of commands, cached until they expire. Each command runs at most once at a time.
#[derive(Debug)]
pub struct Commands {
    executor: Arc<dyn Executor>,
    clock: Arc<dyn Clock>,
    values: FetchCache<SourceCommand, SecretValue, ExecError>,
}

/// The document that a command may print instead of the bare value.
#[derive(Deserialize)]
struct Document {
    /// The value; without it, the document itself is the value.
    value: Option<Zeroizing<String>>,
    /// The expiry in RFC 3339; `Expiration` as the `credential_process` of AWS's tools prints it.
    #[serde(alias = "Expiration")]
    expires: Option<Timestamp>,
    /// Seconds until the expiry.
    expires_in: Option<u32>,
}

impl Commands {
    /// Runs commands with `executor`.
    pub fn new(executor: Arc<dyn Executor>, clock: Arc<dyn Clock>) -> Commands {
        Commands {
            executor,
            values: FetchCache::new(KEPT, |value| value.expose().len(), Arc::clone(&clock)),
            clock,
        }
    }

    /// The value that `command` prints, or a cached one.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn fetch(&self, command: &SourceCommand) -> Result<SecretValue, ExecError> {
        let fetch = || {
            let (executor, clock, command) =
                (Arc::clone(&self.executor), Arc::clone(&self.clock), command.clone());
            async move {
                let printed = executor.run(&command).await;
                printed
                    .and_then(|printed| understand(&printed, clock.now()))
                    .map_err(|reason| ExecError { program: command.program().to_string(), reason })
            }
        };
        Ok(self.values.get(command, Duration::ZERO, |_| false, fetch).await?.value)
    }

    /// The value that `command` printed last, if it is in memory.
    pub(super) fn in_memory(&self, command: &SourceCommand) -> Option<SecretValue> {
        self.values.peek_now(command)
    }

    /// Expires a value that an upstream refused: the next request runs the command.
    pub(super) async fn expire(&self, command: &SourceCommand) {
        self.values.expire(command).await;
    }

    /// Forgets expired values.
    pub(super) fn tidy(&self) {
        self.values.tidy(Duration::ZERO);
    }
}

/// Parses the output: the value, and how long it may be used.
fn understand(printed: &[u8], now: Timestamp) -> Result<Expiring<SecretValue>, String> {
    let value = |bytes: &[u8]| SecretValue::of_document(bytes).map_err(|error| error.to_string());
    if !printed.trim_ascii_start().starts_with(b"{") {
        return Ok(Expiring { value: value(printed)?, usable_for: UNTOLD });
    }
    // The message of serde_json may quote the output, so only the position is reported.
    let document: Document = serde_json::from_slice(printed).map_err(|error| {
        format!(
            "its output begins as JSON, but is not an object with 'value' and 'expires' (RFC 3339) or \
             'expires_in' (seconds); line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    let left = match (document.expires, document.expires_in) {
        (_, Some(seconds)) => Some(Duration::from_secs(seconds.into())),
        (Some(end), None) => Some(Duration::try_from(end.duration_since(now)).unwrap_or_default()),
        (None, None) => None,
    };
    let usable_for = match left {
        Some(Duration::ZERO) => return Err("the value that it printed has already expired".to_owned()),
        Some(left) => left.saturating_sub(EARLY.min(left / 5)).min(LONGEST),
        None => UNTOLD,
    };
    let value = match &document.value {
        Some(text) => value(text.as_bytes())?,
        None => value(printed)?,
    };
    Ok(Expiring { value, usable_for })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use onecli_sys::SystemClock;

    use super::*;

    #[test]
    fn command_output_is_parsed() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |printed: &str, expected: Result<(&str, u64), &str>| {
            let got = understand(printed.as_bytes(), now);
            match (&got, expected) {
                (Ok(got), Ok((value, seconds))) => {
                    assert_eq!(got.value.expose(), value.as_bytes(), "{printed}");
                    assert_eq!(got.usable_for, Duration::from_secs(seconds), "{printed}");
                }
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{printed}: {error}"),
                _ => panic!("{printed}: {got:?}"),
            }
        };
        check("sk-12345678\n", Ok(("sk-12345678", 30)));
        check("short", Err("shorter"));
        check("", Err("shorter"));
        check("two lines\nof text", Err("control character"));
        check(r#"{"value":"sk-12345678"}"#, Ok(("sk-12345678", 30)));
        check(r#" {"value":"sk-12345678","expires_in":3600}"#, Ok(("sk-12345678", 3540)));
        check(r#"{"value":"sk-12345678","expires_in":10}"#, Ok(("sk-12345678", 8)));
        check(r#"{"value":"sk-12345678","expires_in":4000000000}"#, Ok(("sk-12345678", 86_400)));
        check(r#"{"value":"sk-12345678","expires":"2026-01-01T02:00:00+01:00"}"#, Ok(("sk-12345678", 3540)));
        check(r#"{"value":"sk-12345678","expires":"2025-12-31T23:59:59Z"}"#, Err("has already expired"));
        check(r#"{"value":"sk-12345678","expires_in":0}"#, Err("has already expired"));
        check(r#"{"value":"sk-12345678","expires":"soon"}"#, Err("RFC 3339"));
        check(r#"{"value":"short"}"#, Err("shorter"));
        check(r#"{"value":"line\nline-12345678"}"#, Err("control character"));
        check("{sk-12345678", Err("begins as JSON"));
        let keys = r#"{"Version":1,"AccessKeyId":"AKIA","SecretAccessKey":"0123","Expiration":"2026-01-01T01:00:00Z"}"#;
        check(keys, Ok((keys, 3540)));
    }

    #[test]
    fn error_never_contains_command_output() {
        for printed in [
            r#"{"value":"hunter22","expires":"hunter22"}"#,
            r#"{"value":["hunter22"]}"#,
            r#"{"value":"hunter22","expires_in":"hunter22"}"#,
            "hunter22\nhunter22",
            "{hunter22",
        ] {
            let error = understand(printed.as_bytes(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(!error.contains("hunter22"), "{error}");
        }
    }

    /// Counts its calls, and prints the number.
    #[derive(Debug, Default)]
    pub(in crate::sources) struct Counting(AtomicU64);

    #[async_trait]
    impl Executor for Counting {
        async fn run(&self, command: &SourceCommand) -> Result<Zeroizing<Vec<u8>>, String> {
            let number = self.0.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            match command.arguments() {
                [] => Ok(format!("a-value-{number}").into_bytes().into()),
                _ => Err("no".to_owned()),
            }
        }
    }

    #[tokio::test]
    async fn command_runs_once_for_many_and_again_after_a_refusal() {
        let counting = Arc::new(Counting::default());
        let commands = Commands::new(Arc::clone(&counting) as _, Arc::new(SystemClock));
        let command: SourceCommand = "/bin/a".parse().unwrap();
        let all = futures_util::future::join_all((0..100).map(|_| commands.fetch(&command))).await;
        assert!(all.iter().all(|got| got.as_ref().unwrap().expose() == b"a-value-0"));
        assert_eq!(counting.0.load(SeqCst), 1);
        commands.expire(&command).await;
        assert_eq!(commands.fetch(&command).await.unwrap().expose(), b"a-value-1");
        let failing: SourceCommand = "/bin/a --token=hunter22".parse().unwrap();
        let error = commands.fetch(&failing).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot read the value from the command /bin/a: no");
        assert!(!format!("{error:?} {commands:?}").contains("a-value"));
    }
}
