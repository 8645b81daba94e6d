//! The reference page of the fields.

use std::path::{Path, PathBuf};

use super::*;

const INTRODUCTION: &str = "\
# Fields of an audit record

Each line of the audit log is a JSON object with these fields. A field that is unknown, or that does not apply, is
absent. `onecli audit export --format csv` has a column for each field. `--format ocsf` copies a field to the named
attributes of OCSF 1.6.0, and contains the whole record in `unmapped`.

A field of the protocol `common` may be in the record of any protocol. The other fields are only in records of theirs.

This page is generated from `onecli-daemon/crates/audit/src/fields.rs`. To write it anew, run
`cargo test -p onecli-audit -- --ignored write_page`.

| field | type | meaning | protocols | example | OCSF |
|---|---|---|---|---|---|
";

fn row(field: &Field) -> String {
    let attribute = |ocsf: &Ocsf| format!("`{}`", ocsf.pointer().trim_start_matches('/').replace('/', "."));
    let attributes: Vec<String> = field.ocsf.iter().map(attribute).collect();
    let Field { name, protocol, example, doc, .. } = field;
    let kind = if field.is_text() { "text" } else { "number" };
    format!("| `{name}` | {kind} | {} | {protocol} | `{example}` | {} |\n", doc.trim(), attributes.join(", "))
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/reference/audit-record.md")
}

fn page() -> String {
    INTRODUCTION.to_owned() + &fields().map(row).collect::<String>()
}

#[test]
fn reference_page_lists_the_fields() {
    let committed = std::fs::read_to_string(path()).unwrap();
    assert!(
        committed == page(),
        "the page is out of date: run `cargo test -p onecli-audit -- --ignored write_page`"
    );
}

#[test]
#[ignore = "writes the page anew"]
fn write_page() {
    std::fs::write(path(), page()).unwrap();
}
