//! Our token: got by one of the login methods, renewed at two thirds of its time, got again when it is gone.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use onecli_model::{Clock, Random};
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::BackendError;
use super::wire::{Call, Wire};
use super::words::{self, AuthBlock, LoggedIn, LookedUp, Wrapping};
use crate::backends::file::Files;

/// Largest file with a token, a secret id or a JWT, in bytes.
const LARGEST_FILE: u64 = 64 << 10;
/// Pauses after a renewal or a login that failed.
const PAUSE: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(30);
/// What is renewed later than this is looked at anyway.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// How we prove to the server who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// A token out of a file, renewed if it can be.
    Token {
        /// Holds the token; read again when the token is refused.
        file: PathBuf,
    },
    /// `AppRole` (`auth/MOUNT/login`).
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The role's id, no secret.
        role_id: String,
        /// Holds the secret id, or a wrapping token for it.
        secret_id_file: PathBuf,
        /// Does the file hold a wrapping token (response wrapping)?
        wrapped: bool,
    },
    /// A JWT out of a file: Kubernetes' service account token, or any other (`auth/MOUNT/login`).
    Jwt {
        /// Where the method is mounted: `kubernetes` or `jwt`, say.
        mount: String,
        /// The role to log in as.
        role: String,
        /// Holds the JWT; read at each login, for it is rotated.
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

/// Keeps a secret id that was unwrapped: a wrapping token can be used once only, and a daemon starts more often.
#[async_trait]
pub trait Keep: Send + Sync + std::fmt::Debug {
    /// What was kept last.
    async fn load(&self) -> Option<Zeroizing<Vec<u8>>>;
    /// Keeps it, sealed.
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

/// A question about a token.
#[derive(Serialize)]
struct Lookup<'b> {
    token: &'b str,
}

/// A token that the server gave us.
pub(super) struct Login {
    pub(super) token: Arc<Zeroizing<String>>,
    pub(super) renewable: bool,
    /// None: it does not end.
    pub(super) ttl: Option<Duration>,
    pub(super) since: Instant,
}

impl Login {
    fn of(block: Option<AuthBlock>, path: &str, since: Instant) -> Result<Login, BackendError> {
        let absent =
            || BackendError::Answer { path: path.to_owned(), reason: "there is no token in it".to_owned() };
        let AuthBlock { client_token, renewable, lease_duration } = block.ok_or_else(absent)?;
        let token = Arc::new(client_token.0.ok_or_else(absent)?);
        Ok(Login { token, renewable, ttl: seconds(lease_duration), since })
    }

    /// Two thirds of its time, less up to a tenth of that for a `jitter` of 255.
    pub(super) fn renewal_due(&self, jitter: u8) -> Option<Instant> {
        let two_thirds = self.ttl? * 2 / 3;
        Some(self.since + two_thirds.saturating_sub(two_thirds / 10 * u32::from(jitter) / 255))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ttl.is_some_and(|ttl| now.saturating_duration_since(self.since) >= ttl)
    }
}

/// 0 stands for a token that does not end.
fn seconds(ttl: u64) -> Option<Duration> {
    (ttl > 0).then(|| Duration::from_secs(ttl))
}

/// Logs in, and keeps logged in.
pub(super) struct Auth {
    method: Method,
    keep: Arc<dyn Keep>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// A file of a server that is gone keeps a thread waiting, and not the daemon.
    pub(super) files: Files,
    current: Mutex<Option<Arc<Login>>>,
    /// One login at a time.
    logging_in: tokio::sync::Mutex<()>,
    /// Raised on each login, so that the renewal's clock starts anew.
    changed: tokio::sync::Notify,
}

impl Auth {
    pub(super) fn new(
        method: Method,
        keep: Arc<dyn Keep>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Auth {
        Auth {
            method,
            keep,
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

    /// The token we have, as it stands.
    pub(super) fn current(&self) -> Option<Arc<Login>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A token that has not ended by our clock; logs in where there is none. One that is `refused` counts as none.
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
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(login);
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
                        "the token in {} is not valid (any more): put a new one there",
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

    /// The secret id behind the wrapping token: unwrapped once, then kept.
    async fn unwrapped(
        &self,
        wire: &Wire,
        mount: &str,
        file: &Path,
    ) -> Result<Zeroizing<String>, BackendError> {
        let wrapping = Arc::new(self.read(file).await?);
        let fingerprint = Sha256::digest(wrapping.as_bytes());
        if let Some(kept) = self.keep.load().await
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
        // Somebody who took the token could have wrapped another secret id in a new one: its origin tells.
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
        if let Err(reason) = self.keep.save(&content).await {
            tracing::error!(%reason, "the unwrapped secret id cannot be kept: the next start needs a new wrapping token");
        }
        Ok(secret_id)
    }

    /// Renews the token at two thirds of its time, for as long as it is polled.
    pub(super) async fn maintain(&self, wire: &Wire) {
        let mut pause = PAUSE.start;
        loop {
            // Daemons that started together do not renew together.
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
                    tracing::warn!(%error, "the vault server's token cannot be renewed");
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
                // Near its maximal time a token is renewed for less and less: a new one is due then.
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

/// A small file with one secret in it, white space around it left out.
fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| error.to_string())?;
    let facts = file.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if facts.len() > LARGEST_FILE {
        return Err(format!("it is larger than {LARGEST_FILE} bytes"));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(facts.len()).unwrap_or(0) + 1));
    file.take(LARGEST_FILE).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let trimmed = Zeroizing::new(text.trim().to_owned());
    if trimmed.is_empty() || trimmed.bytes().any(|b| b.is_ascii_control()) {
        return Err("it should hold one line of text".to_owned());
    }
    Ok(trimmed)
}
