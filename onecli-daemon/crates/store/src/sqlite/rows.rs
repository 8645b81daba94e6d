//! Conversion of rows into the types of the model. If a row does not parse, the error names it.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use onecli_model::{Agent, Sealed, Secret, SecretId, Target, TokenHash, ValueClassError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::{Sqlite, SqliteRow};

use super::super::{AuditRow, GrantRow, LeaseRow, Session, SlotRow, StoreError, StoredAgent};

pub(super) fn agent(row: &SqliteRow) -> Result<StoredAgent, StoreError> {
    let row = Row::new("agents", "name", row);
    let agent = Agent {
        id: row.parse("id")?,
        name: row.parse("name")?,
        factors: row.parse("factors")?,
        cgroup: row.parse("cgroup")?,
        user: row.get("os_user")?,
        egress: row.parse("egress")?,
        enabled: row.get("enabled")?,
        generation: row.get("generation")?,
        allow_git_config: row.get("allow_git_config")?,
    };
    Ok(StoredAgent { agent, token_hash: row.token_hash()? })
}

pub(super) fn session(row: &SqliteRow) -> Result<Session, StoreError> {
    let row = Row::new("sessions", "agent", row);
    Ok(Session {
        token_hash: row.token_hash()?,
        agent: row.parse("agent")?,
        expires: row.time("expires")?,
        launched_by: row.get("launched_by")?,
    })
}

pub(super) fn secret_use(row: &SqliteRow) -> Result<(SecretId, Timestamp), StoreError> {
    let row = Row::new("secret_uses", "secret", row);
    Ok((row.parse("secret")?, row.time("time")?))
}

pub(super) fn secret(row: &SqliteRow) -> Result<Secret, StoreError> {
    let row = Row::new("secrets", "name", row);
    let target = Target {
        host: row.parse("host")?,
        port: row.get("port")?,
        methods: row.json("methods")?,
        paths: row.json("paths")?,
        allow_plaintext: row.get("allow_plaintext")?,
    };
    if target.paths.is_empty() {
        return Err(row.bad("paths", "there must be at least one"));
    }
    let placement = row.json("placement")?;
    let sealed: Option<Vec<u8>> = row.get("sealed")?;
    let class: Option<&str> = row.get("class")?;
    let class = class.map(str::parse).transpose();
    Ok(Secret {
        id: row.parse("id")?,
        name: row.parse("name")?,
        target,
        placement,
        profile: row.json("profile")?,
        env: row.get("env")?,
        enabled: row.get("enabled")?,
        version: row.get("version")?,
        class: class.map_err(|error: ValueClassError| row.bad("class", error))?,
        sealed: sealed.map(Sealed).ok_or_else(|| row.bad("version", "there is no value of this version"))?,
    })
}

pub(super) fn grant(row: &SqliteRow) -> Result<GrantRow, StoreError> {
    let row = Row::new("grants", "agent", row);
    Ok(GrantRow { agent: row.parse("agent")?, secret: row.parse("secret")? })
}

pub(super) fn audit(row: &SqliteRow) -> Result<AuditRow, StoreError> {
    let row = Row::new("audit", "json", row);
    let (id, seq): (i64, i64) = (row.get("id")?, row.get("seq")?);
    let request_id: Option<String> = row.get("request_id")?;
    Ok(AuditRow {
        id: u64::try_from(id).map_err(|error| row.bad("id", error))?,
        log: row.parse("log")?,
        seq: u64::try_from(seq).map_err(|error| row.bad("seq", error))?,
        time: row.time("time")?,
        request_id: request_id
            .map(|text| text.parse())
            .transpose()
            .map_err(|error: uuid::Error| row.bad("request_id", error))?,
        event: row.get("event")?,
        agent: row.get("agent")?,
        host: row.get("host")?,
        verdict: row.get("verdict")?,
        code: row.get("code")?,
        launched_by: row.get("launched_by")?,
        json: row.get("json")?,
    })
}

pub(super) fn slot(row: &SqliteRow) -> Result<SlotRow, StoreError> {
    let row = Row::new("key_slots", "method", row);
    let root: &[u8] = row.get("root")?;
    Ok(SlotRow {
        number: row.get("number")?,
        root: root.try_into().map_err(|error| row.bad("root", error))?,
        method: row.get("method")?,
        sealed: Sealed(row.get("sealed")?),
        created: row.time("created")?,
    })
}

pub(super) fn lease(row: &SqliteRow) -> Result<LeaseRow, StoreError> {
    let row = Row::new("leases", "id", row);
    Ok(LeaseRow { id: row.get("id")?, agent: row.parse("agent")?, path: row.get("path")? })
}

/// The JSON form of a type that is stored as JSON.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    #[expect(clippy::expect_used, reason = "patterns and placements serialize to texts")]
    serde_json::to_string(value).expect("the model's types are always valid JSON")
}

/// A row, with the names that identify it in an error.
pub(super) struct Row<'a> {
    table: &'static str,
    key: &'static str,
    columns: &'a SqliteRow,
}

impl<'a> Row<'a> {
    pub(super) fn new(table: &'static str, key: &'static str, columns: &'a SqliteRow) -> Row<'a> {
        Row { table, key, columns }
    }

    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: sqlx::Type<Sqlite> + sqlx::Decode<'a, Sqlite>,
    {
        self.columns.try_get(column).map_err(|error| self.bad(column, error))
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.get::<&str>(column)?.parse().map_err(|error| self.bad(column, error))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.get(column)?).map_err(|error| self.bad(column, error))
    }

    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        Timestamp::from_microsecond(self.get(column)?).map_err(|error| self.bad(column, error))
    }

    fn token_hash(&self) -> Result<TokenHash, StoreError> {
        let bytes: &[u8] = self.get("token_hash")?;
        bytes.try_into().map(TokenHash).map_err(|error| self.bad("token_hash", error))
    }

    pub(super) fn bad(&self, column: &'static str, reason: impl Display) -> StoreError {
        let row = self.columns.try_get::<String, _>(self.key);
        let row = row.or_else(|_| self.columns.try_get::<i64, _>(self.key).map(|id| id.to_string()));
        let row = row.unwrap_or_default();
        StoreError::BadRow { table: self.table, row, column, reason: reason.to_string() }
    }
}
