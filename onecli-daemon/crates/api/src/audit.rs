//! Queries of the audit log.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use onecli_audit::{Event, Verdict};
use onecli_model::{AgentName, RequestId};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// A query of the audit log, sent as a URL query string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// The filter that records must match.
    pub filter: AuditFilter,
    /// The number of newest records, at most [`AuditQuery::MAX_LIMIT`].
    pub limit: u32,
    /// Return all records instead, starting with the oldest.
    pub all: bool,
    /// Continue with new records as they are written, until the client disconnects.
    pub follow: bool,
    /// For a runner without administrator rights: include records of every run, not only of its own runs.
    pub every_run: bool,
}

/// Selects records that match every given condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The agent's name.
    pub agent: Option<AgentName>,
    /// The host in canonical form, as the records contain it.
    pub host: Option<String>,
    /// The verdict.
    pub verdict: Option<Verdict>,
    /// The event.
    pub event: Option<Event>,
    /// The reason code.
    pub code: Option<String>,
    /// The request's id.
    pub request: Option<RequestId>,
    /// The earliest time, inclusive.
    pub since: Option<Timestamp>,
    /// The latest time, exclusive.
    pub until: Option<Timestamp>,
}

impl AuditQuery {
    /// The largest number of records in one query, unless it requests all.
    pub const MAX_LIMIT: u32 = 10_000;

    /// Returns the query string, without the `?`.
    pub fn to_query(&self) -> String {
        let mut text = format!("limit={}&all={}&follow={}", self.limit, self.all, self.follow);
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push('&');
                text.push_str(key);
                text.push('=');
                text.extend(utf8_percent_encode(&value, NON_ALPHANUMERIC));
            }
        };
        let filter = &self.filter;
        add("agent", filter.agent.as_ref().map(ToString::to_string));
        add("host", filter.host.clone());
        add("verdict", filter.verdict.map(|verdict| verdict.as_str().to_owned()));
        add("event", filter.event.map(|event| event.as_str().to_owned()));
        add("code", filter.code.clone());
        add("request", filter.request.map(|id| id.to_string()));
        add("since", filter.since.map(|time| time.to_string()));
        add("every_run", self.every_run.then(|| true.to_string()));
        add("until", filter.until.map(|time| time.to_string()));
        text
    }

    /// Parses the output of [`AuditQuery::to_query`]. Defaults: `limit=100&all=false&follow=false`.
    ///
    /// # Errors
    /// Returns a sentence about the first key that is unknown or invalid.
    pub fn from_query(text: &str) -> Result<AuditQuery, String> {
        let mut query = AuditQuery { limit: 100, ..AuditQuery::default() };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value)
                .decode_utf8()
                .ok()
                .filter(|value| value.len() <= 2048)
                .ok_or("a value in the query is too long or not UTF-8")?;
            let filter = &mut query.filter;
            match key {
                "agent" => filter.agent = Some(read(key, &value)?),
                "host" => filter.host = Some(value.into_owned()),
                "verdict" => filter.verdict = Some(read(key, &value)?),
                "event" => filter.event = Some(read(key, &value)?),
                "code" => filter.code = Some(value.into_owned()),
                "request" => filter.request = Some(read(key, &value)?),
                "since" => filter.since = Some(read(key, &value)?),
                "until" => filter.until = Some(read(key, &value)?),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit <= Self::MAX_LIMIT);
                    query.limit = limit
                        .ok_or_else(|| format!("limit must be a number from 0 to {}", Self::MAX_LIMIT))?;
                }
                "all" => query.all = read(key, &value)?,
                "every_run" => query.every_run = read(key, &value)?,
                "follow" => query.follow = read(key, &value)?,
                _ => return Err("the query contains an unknown key".to_owned()),
            }
        }
        Ok(query)
    }
}

fn read<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("bad value for '{key}' in the query: {error}"))
}
