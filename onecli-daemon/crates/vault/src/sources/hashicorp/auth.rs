//! The daemon's token at the vault server: obtained by a login method, renewed at two thirds of its lifetime, and
//! replaced when it is lost.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use onecli_model::{Clock, Random};
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::BackendError;
use super::wire::{Call, Wire};
use super::words::{self, AuthBlock, LoggedIn, LookedUp, Wrapping};
use crate::sources::file::Files;

/// The largest file with a token, a secret id or a JWT, in bytes.
const LARGEST_FILE: u64 = 64 << 10;
/// The pauses after a failed renewal or login.
const PAUSE: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(30);
/// The longest sleep between checks of the token.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// The method by which the daemon authenticates to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// A token from a file, renewed if possible.
    Token {
        /// The file with the token; read again when the token is refused.
        file: PathBuf,
    },
    /// `AppRole` (`auth/MOUNT/login`).
    AppRole {
        /// The mount path of the method.
        mount: String,
        /// The role's id, which is not secret.
        role_id: String,
        /// The file with the secret id, or with a wrapping token for it.
        secret_id_file: PathBuf,
        /// Whether the file contains a wrapping token (response wrapping).
        wrapped: bool,
    },
    /// A JWT from a file: Kubernetes' service account token, or any other (`auth/MOUNT/login`).
    Jwt {
        /// The mount path of the method, such as `kubernetes` or `jwt`.
        mount: String,
        /// The role to log in as.
        role: String,
        /// The file with the JWT; read at each login, because it is rotated.
        file: PathBuf,
    },
}

impl Method {
    fn name(&self) -> &'static str {
        match self {
            Method::Token { .. } => "token",
            Method::AppRole { .. } => "AppRole",
            Method::Jwt { .. } => "JWT",
        }
    }
}

/// Stores an unwrapped secret id: a wrapping token can be used only once, and a daemon starts more often.
#[async_trait]
pub trait SecretIdStore: Send + Sync + std::fmt::Debug {
    /// The content saved last.
    async fn load(&self) -> Option<Zeroizing<Vec<u8>>>;
    /// Saves content, sealed.
    async fn save(&self, content: &[u8]) -> Result<(), String>;
}

#[derive(Serialize)]
struct AppRoleLogin<'b> {
    role_id: &'b str,
    secret_id: &'b str,
}

#[derive(Serialize)]
struct JwtLogin<'b> {
    role: &'b str,
    jwt: &'b str,
}

/// A lookup of a token.
#[derive(Serialize)]
struct Lookup<'b> {
    token: &'b str,
}

/// A token that the server issued.
pub(super) struct Login {
    pub(super) token: Arc<Zeroizing<String>>,
    pub(super) renewable: bool,
    /// `None` if it does not expire.
    pub(super) ttl: Option<Duration>,
    pub(super) since: Instant,
}

impl Login {
    fn of(block: Option<AuthBlock>, path: &str, since: Instant) -> Result<Login, BackendError> {
        let absent =
            || BackendError::Answer { path: path.to_owned(), reason: "it contains no token".to_owned() };
        let AuthBlock { client_token, renewable, lease_duration } = block.ok_or_else(absent)?;
        let token = Arc::new(client_token.0.ok_or_else(absent)?);
        Ok(Login { token, renewable, ttl: seconds(lease_duration), since })
    }

    /// Two thirds of its lifetime, less up to a tenth of that for a `jitter` of 255.
    pub(super) fn renewal_due(&self, jitter: u8) -> Option<Instant> {
        let two_thirds = self.ttl? * 2 / 3;
        Some(self.since + two_thirds.saturating_sub(two_thirds / 10 * u32::from(jitter) / 255))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ttl.is_some_and(|ttl| now.saturating_duration_since(self.since) >= ttl)
    }
}

/// Converts a lifetime; 0 means that the token does not expire.
fn seconds(ttl: u64) -> Option<Duration> {
    (ttl > 0).then(|| Duration::from_secs(ttl))
}

/// Logs in, and stays logged in.
pub(super) struct Auth {
    method: Method,
    secret_ids: Arc<dyn SecretIdStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// A file on an unreachable server blocks a thread, but not the daemon.
    pub(super) files: Files,
    current: Mutex<Option<Arc<Login>>>,
    /// Serializes logins.
    logging_in: tokio::sync::Mutex<()>,
    /// Signalled on each login, so that the renewal timer restarts.
    changed: tokio::sync::Notify,
}

impl Auth {
    pub(super) fn new(
        method: Method,
        secret_ids: Arc<dyn SecretIdStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Auth {
        Auth {
            method,
            secret_ids,
            clock,
            random,
            files: Files::default(),
            current: Mutex::default(),
            logging_in: tokio::sync::Mutex::default(),
            changed: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn method(&self) -> &'static str {
        self.method.name()
    }

    /// The current token, expired or not.
    pub(super) fn current(&self) -> Option<Arc<Login>> {
        self.current.lock().clone()
    }

    /// Returns a token that has not expired by the daemon's clock, and logs in if there is none. A token that is
    /// `refused` is not used.
    pub(super) async fn token(
        &self,
        wire: &Wire,
        refused: Option<&Arc<Login>>,
    ) -> Result<Arc<Login>, BackendError> {
        let usable = || {
            self.current().filter(|login| {
                !login.is_over(self.clock.instant())
                    && !refused.is_some_and(|other| Arc::ptr_eq(login, other))
            })
        };
        if let Some(login) = usable() {
            return Ok(login);
        }
        let _alone = self.logging_in.lock().await;
        if let Some(login) = usable() {
            return Ok(login);
        }
        let login = Arc::new(self.log_in(wire).await?);
        tracing::info!(method = self.method(), ttl = ?login.ttl, "logged in to the vault server");
        self.set(Arc::clone(&login));
        Ok(login)
    }

    fn set(&self, login: Arc<Login>) {
        *self.current.lock() = Some(login);
        self.changed.notify_one();
    }

    async fn log_in(&self, wire: &Wire) -> Result<Login, BackendError> {
        match &self.method {
            Method::Token { file } => {
                let token = self.read(file).await?;
                let since = self.clock.instant();
                let path = "auth/token/lookup-self";
                let token = Arc::new(token);
                let answer = wire.call(&Call::get(path).by(&token)).await?;
                if answer.status.as_u16() == 403 {
                    return Err(self.refused(&format!(
                        "the token in {} is not valid, or has expired: put a new one there",
                        file.display()
                    )));
                }
                let LookedUp { data } = words::read(path, &answer)?;
                Ok(Login { token, renewable: data.renewable, ttl: seconds(data.ttl), since })
            }
            Method::AppRole { mount, role_id, secret_id_file, wrapped } => {
                let secret_id = match wrapped {
                    false => self.read(secret_id_file).await?,
                    true => self.unwrapped(wire, mount, secret_id_file).await?,
                };
                self.post_login(wire, mount, &AppRoleLogin { role_id, secret_id: &secret_id }).await
            }
            Method::Jwt { mount, role, file } => {
                let jwt = self.read(file).await?;
                self.post_login(wire, mount, &JwtLogin { role, jwt: &jwt }).await
            }
        }
    }

    async fn read(&self, file: &Path) -> Result<Zeroizing<String>, BackendError> {
        let read = self.files.on_a_thread(file, read_secret_file).await;
        read.map_err(|reason| BackendError::File { path: file.display().to_string(), reason })
    }

    async fn post_login(
        &self,
        wire: &Wire,
        mount: &str,
        body: &impl Serialize,
    ) -> Result<Login, BackendError> {
        let path = format!("auth/{mount}/login");
        let since = self.clock.instant();
        let answer = wire.call(&Call::post(&path, body)?).await?;
        if answer.status.is_client_error() {
            return Err(self.refused(&words::reason(&answer)));
        }
        let LoggedIn { auth } = words::read(&path, &answer)?;
        Login::of(auth, &path, since)
    }

    /// The secret id behind the wrapping token: unwrapped once, then stored.
    async fn unwrapped(
        &self,
        wire: &Wire,
        mount: &str,
        file: &Path,
    ) -> Result<Zeroizing<String>, BackendError> {
        let wrapping = Arc::new(self.read(file).await?);
        let fingerprint = Sha256::digest(wrapping.as_bytes());
        if let Some(kept) = self.secret_ids.load().await
            && let Some(secret_id) = kept.strip_prefix(fingerprint.as_slice())
            && let Ok(secret_id) = std::str::from_utf8(secret_id)
        {
            return Ok(Zeroizing::new(secret_id.to_owned()));
        }
        let shown = || file.display().to_string();
        let path = "sys/wrapping/lookup";
        let answer = wire.call(&Call::post(path, &Lookup { token: &wrapping })?).await?;
        if answer.status.is_client_error() {
            return Err(BackendError::Unwrapped { path: shown() });
        }
        let Wrapping { data } = words::read(path, &answer)?;
        // An attacker who took the token could wrap another secret id in a new token. The creation path reveals
        // that.
        let (before, after) = (format!("auth/{mount}/role/"), "/secret-id");
        let ours = data.creation_path.strip_prefix(&before).and_then(|rest| rest.strip_suffix(after));
        if ours.is_none_or(|role| role.contains('/')) {
            return Err(BackendError::WrappedElsewhere {
                path: shown(),
                expected: format!("{before}ROLE{after}"),
                found: data.creation_path.chars().filter(|c| !c.is_control()).take(200).collect(),
            });
        }
        let path = "sys/wrapping/unwrap";
        let answer = wire.call(&Call::post(path, &serde_json::json!({}))?.by(&wrapping)).await?;
        if answer.status.is_client_error() {
            return Err(BackendError::Unwrapped { path: shown() });
        }
        let words::Plain { data, .. } = words::read(path, &answer)?;
        let secret_id = data.and_then(|mut fields| fields.remove("secret_id")?.0).ok_or_else(|| {
            BackendError::Answer { path: path.to_owned(), reason: "no secret_id".to_owned() }
        })?;
        let mut content = Zeroizing::new(Vec::with_capacity(fingerprint.len() + secret_id.len()));
        content.extend_from_slice(&fingerprint);
        content.extend_from_slice(secret_id.as_bytes());
        if let Err(reason) = self.secret_ids.save(&content).await {
            tracing::error!(%reason, "the unwrapped secret id cannot be stored: the next start needs a new wrapping token");
        }
        Ok(secret_id)
    }

    /// Renews the token at two thirds of its lifetime, as long as this is polled.
    pub(super) async fn maintain(&self, wire: &Wire) {
        let mut pause = PAUSE.start;
        loop {
            // Jitter, so that daemons that started together do not renew together.
            let mut jitter = [0; 1];
            if self.random.fill(&mut jitter).is_err() {
                jitter = [0];
            }
            let due = |login: &Login| login.renewal_due(jitter[0]);
            let sleep = self.current().and_then(|login| due(&login)).map_or(LONGEST_SLEEP, |due| {
                due.saturating_duration_since(self.clock.instant()).min(LONGEST_SLEEP)
            });
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.changed.notified() => continue,
            }
            let Some(login) = self.current() else { continue };
            if due(&login).is_none_or(|due| due > self.clock.instant()) {
                continue;
            }
            match self.renew(wire, &login).await {
                Ok(()) => pause = PAUSE.start,
                Err(error) => {
                    tracing::warn!(%error, "the token for the vault server cannot be renewed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.end);
                }
            }
        }
    }

    async fn renew(&self, wire: &Wire, login: &Arc<Login>) -> Result<(), BackendError> {
        if login.renewable && !login.is_over(self.clock.instant()) {
            let path = "auth/token/renew-self";
            let since = self.clock.instant();
            let answer = wire.call(&Call::post(path, &serde_json::json!({}))?.by(&login.token)).await?;
            if answer.status.is_success() {
                let LoggedIn { auth } = words::read(path, &answer)?;
                let renewed = Login::of(auth, path, since)?;
                // Near its maximum lifetime each renewal extends a token by less; then it is replaced.
                if renewed.ttl.is_none_or(|ttl| login.ttl.is_some_and(|before| ttl >= before / 2)) {
                    self.set(Arc::new(renewed));
                    return Ok(());
                }
            }
        }
        self.token(wire, Some(login)).await.map(drop)
    }

    fn refused(&self, reason: &str) -> BackendError {
        BackendError::Login { method: self.method(), reason: reason.to_owned() }
    }
}

/// Reads a small file with one secret, and removes white space around it.
fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| error.to_string())?;
    let facts = file.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if facts.len() > LARGEST_FILE {
        return Err(format!("it is larger than {LARGEST_FILE} bytes"));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(facts.len()).unwrap_or(0) + 1));
    file.take(LARGEST_FILE).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let trimmed = Zeroizing::new(text.trim().to_owned());
    if trimmed.is_empty() || trimmed.bytes().any(|b| b.is_ascii_control()) {
        return Err("it must contain one line of text".to_owned());
    }
    Ok(trimmed)
}
