//! Questions to the audit log.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use onecli_audit::{Event, Verdict};
use onecli_model::{AgentName, RequestId};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What of the audit log is asked for, as a query string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Which records.
    pub filter: AuditFilter,
    /// The newest so many, at most [`AuditQuery::MAX_LIMIT`].
    pub limit: u32,
    /// All of them instead, from the oldest on.
    pub all: bool,
    /// Go on with new records as they are written, until the client hangs up.
    pub follow: bool,
    /// For a runner who does not administer: records of every run, and not only of the own ones.
    pub every_run: bool,
}

/// Which records: those that fit all of what is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this agent.
    pub agent: Option<AgentName>,
    /// Of this host, as the records have it: in canonical form.
    pub host: Option<String>,
    /// With this verdict.
    pub verdict: Option<Verdict>,
    /// With this event.
    pub event: Option<Event>,
    /// With this code.
    pub code: Option<String>,
    /// Of this request.
    pub request: Option<RequestId>,
    /// Written at this time or later.
    pub since: Option<Timestamp>,
    /// Written before this time.
    pub until: Option<Timestamp>,
}

impl AuditQuery {
    /// How many records one question may ask for, unless it asks for all.
    pub const MAX_LIMIT: u32 = 10_000;

    /// The query as it stands behind `?`.
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

    /// Reads [`AuditQuery::to_query`]; what is not said is `limit=100&all=false&follow=false`.
    ///
    /// # Errors
    /// A sentence about the first key that is not known or does not fit.
    pub fn from_query(text: &str) -> Result<AuditQuery, String> {
        let mut query = AuditQuery { limit: 100, ..AuditQuery::default() };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value)
                .decode_utf8()
                .ok()
                .filter(|value| value.len() <= 2048)
                .ok_or("a value in the query is no text")?;
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
                _ => return Err("the query holds an unknown key".to_owned()),
            }
        }
        Ok(query)
    }
}

fn read<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("bad value for '{key}' in the query: {error}"))
}
