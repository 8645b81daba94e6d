//! Audit records in the formats of other programs.

use std::io;

use serde_json::{Map, Value};

use super::args::ExportFormat;
use super::ocsf::ocsf;
use crate::error::CliError;

/// The last CSV column: fields that only a newer daemon knows, as JSON.
const OTHER: &str = "other";

/// Converts records into lines.
pub(crate) struct Export {
    format: ExportFormat,
}

impl Export {
    pub(crate) fn new(format: ExportFormat) -> Export {
        Export { format }
    }

    /// Returns the header line, without its line break.
    ///
    /// # Errors
    /// None in practice: the line is created in memory.
    pub(crate) fn header(&self) -> Result<Option<Vec<u8>>, CliError> {
        (self.format == ExportFormat::Csv).then(|| csv_line(columns().chain([OTHER]))).transpose()
    }

    /// Returns a record's line, without its line break.
    pub(crate) fn line(&mut self, record: &[u8]) -> Result<Vec<u8>, CliError> {
        Ok(match self.format {
            ExportFormat::Jsonl => record.to_vec(),
            ExportFormat::Csv => csv(serde_json::from_slice(record)?)?,
            ExportFormat::Ocsf => serde_json::to_vec(&ocsf(serde_json::from_slice(record)?))?,
        })
    }
}

/// The CSV columns before the last one: every field that a record can have.
fn columns() -> impl Iterator<Item = &'static str> {
    onecli_audit::fields().map(|field| field.name)
}

/// Formats a record by RFC 4180. Fields known only to a newer daemon go into the last column, as JSON.
fn csv(mut record: Map<String, Value>) -> Result<Vec<u8>, CliError> {
    let mut cells: Vec<String> =
        columns().map(|name| record.remove(name).map_or_else(String::new, |value| cell(&value))).collect();
    cells.push(if record.is_empty() { String::new() } else { cell(&Value::Object(record)) });
    csv_line(cells)
}

/// Returns a line with every cell quoted. It ends with the CR of its CRLF; the caller adds the LF.
fn csv_line<I: IntoIterator<Item: AsRef<[u8]>>>(cells: I) -> Result<Vec<u8>, CliError> {
    let mut writer = csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Always)
        .terminator(csv::Terminator::Any(b'\r'))
        .from_writer(Vec::new());
    writer.write_record(cells).map_err(io::Error::from)?;
    Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

/// Returns a cell. Numbers stay unchanged. Text that a spreadsheet would treat as a formula gets an apostrophe.
fn cell(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => without_formulas(text),
        other => without_formulas(&other.to_string()),
    }
}

/// Puts an apostrophe before each formula. A formula may also begin after a line break, or after `;` or a tab, which
/// separate cells in some locales. Not every program honours the quotes in these cases.
fn without_formulas(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut at_start = true;
    for c in text.chars() {
        if at_start && begins_formula(c) {
            safe.push('\'');
        }
        safe.push(c);
        at_start = match c {
            ';' | '\t' | '\r' | '\n' => true,
            // Spreadsheets trim these characters before they interpret the cell.
            ' ' | '"' | '\u{a0}' | '\u{3000}' => at_start,
            _ => false,
        };
    }
    safe
}

/// Includes the full-width forms, which some programs fold.
fn begins_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '＝' | '＋' | '－' | '＠')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn csv_cells_are_neither_formulas_nor_split() {
        let check = |raw: &str, written: &str| assert_eq!(cell(&Value::from(raw)), written, "{raw:?}");
        check("plain", "plain");
        check("=1+1", "'=1+1");
        check("+SUM(A1)", "'+SUM(A1)");
        check("-2", "'-2");
        check("@cmd", "'@cmd");
        check("\t=1", "'\t'=1");
        check(" =1", " '=1");
        check("a;=1", "a;'=1");
        check("a; \"=1", "a; \"'=1");
        check("a\n@b", "a\n'@b");
        check("＝1+1", "'＝1+1");
        check("x=1;y-z", "x=1;y-z");
        assert_eq!(cell(&Value::from(-2)), "-2");
        let line = |cells: &[&str]| String::from_utf8(csv_line(cells).unwrap()).unwrap();
        assert_eq!(line(&["a,b", "a\"b", "-2", ""]), "\"a,b\",\"a\"\"b\",\"-2\",\"\"\r");
    }

    #[test]
    fn csv_has_a_column_for_each_field() {
        let mut export = Export::new(ExportFormat::Csv);
        let header = String::from_utf8(export.header().unwrap().unwrap()).unwrap();
        let header = header.trim_end().replace('"', "");
        assert_eq!(
            header,
            "time,seq,prev,request_id,event,agent,factors,mode,method,host,port,path,address,rule,secret,\
             secret_version,backend,verdict,code,status,bytes_in,bytes_out,duration_us,tls,alpn,scrub_hits,sessions,\
             cgroup,cgroup_id,netns,uid,pid,comm,launched_by,approval,approval_digest,approval_uid,count,other"
        );
        let columns: Vec<&str> = header.split(',').collect();
        let whole = onecli_audit::Record::with_every_field();
        for name in serde_json::to_value(whole).unwrap().as_object().unwrap().keys() {
            assert!(columns.contains(&name.as_str()), "{name}");
        }
        let line = json!({"time": "t", "seq": 3, "agent": "one", "path": "/a,b", "comm": "=x", "new": true});
        let line = String::from_utf8(export.line(line.to_string().as_bytes()).unwrap()).unwrap();
        assert!(line.starts_with("\"t\",\"3\",\"\",\"\",\"\",\"one\","), "{line}");
        assert!(
            line.contains("\"/a,b\"")
                && line.contains("\"'=x\"")
                && line.ends_with("\"{\"\"new\"\":true}\"\r"),
            "{line}"
        );
    }
}
