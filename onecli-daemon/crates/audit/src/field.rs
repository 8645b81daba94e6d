//! The description of a record's field, from which exports and the reference page derive.

/// One field of a line of the log.
#[derive(Debug)]
pub struct Field {
    /// Its name in the line, and its CSV column.
    pub name: &'static str,
    /// The protocol that it belongs to; `common` for all, and for the number, time and link of a line.
    pub protocol: &'static str,
    /// A value as JSON: an unsigned number or a string.
    pub example: &'static str,
    /// The attributes of an OCSF event that contain its value.
    pub ocsf: &'static [Ocsf],
    /// What it is: sentences, with a space before each line.
    pub doc: &'static str,
}

/// An attribute of an OCSF event, as a JSON pointer, and how a field's value gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ocsf {
    /// The value itself.
    Copy(&'static str),
    /// The number as text.
    Text(&'static str),
    /// Microseconds as milliseconds.
    Milliseconds(&'static str),
    /// The export computes it, because it depends on the form of the value or on other fields.
    Derived(&'static str),
}

impl Ocsf {
    /// The attribute's JSON pointer.
    pub fn pointer(self) -> &'static str {
        match self {
            Ocsf::Copy(pointer)
            | Ocsf::Text(pointer)
            | Ocsf::Milliseconds(pointer)
            | Ocsf::Derived(pointer) => pointer,
        }
    }
}

impl Field {
    /// Reports whether the value is text. Otherwise it is an unsigned number.
    pub fn is_text(&self) -> bool {
        self.example.starts_with('"')
    }
}

/// The fields that the writer adds to each record.
const ENVELOPE: [Field; 3] = [
    Field {
        name: "time",
        protocol: "common",
        example: "\"2026-01-02T03:04:05.678901Z\"",
        ocsf: &[Ocsf::Derived("/time"), Ocsf::Copy("/metadata/original_time")],
        doc: "The time of writing: RFC 3339, in UTC, to the microsecond.",
    },
    Field {
        name: "seq",
        protocol: "common",
        example: "7",
        ocsf: &[Ocsf::Copy("/metadata/sequence")],
        doc: "The position in the log. It begins at 1 and grows by one with each record.",
    },
    Field {
        name: "prev",
        protocol: "common",
        example: "\"0123456789abcdef0123456789abcdef\"",
        ocsf: &[Ocsf::Copy("/metadata/uid")],
        doc: "The link to the record before it.",
    },
];

/// Every field of a line, in the order of the line.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    ENVELOPE.iter().chain(super::fields::FIELDS)
}

#[cfg(test)]
mod tests;
