//! The macros that turn one list of fields into the record, its JSON form and the table of its fields.

/// Declares the fields of a record in the order of the line. Each is: its documentation, where it belongs, its name
/// and type, a value as an example, and the attributes of an OCSF event that contain it. A field belongs to
/// `always` (every record has it), to `common` (any protocol may have it), or to one protocol.
macro_rules! record_fields {
    ($($(#[doc = $doc:literal])+ $place:ident $name:ident: $type:ty = $example:literal => [$($ocsf:expr),*];)+) => {
        /// The fields of a record, in the order of the line.
        pub(super) const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            protocol: record_protocol!($place),
            example: stringify!($example),
            ocsf: &[$($ocsf),*],
            doc: concat!($($doc),+),
        }),+];

        /// All fields side by side, as they are in a line.
        #[derive(Deserialize)]
        struct Flat {
            $($name: Option<$type>,)+
        }

        impl Serialize for Record {
            /// Writes the fields side by side, in the order of the list. Unknown fields are omitted.
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                let mut line = out.serialize_struct("Record", FIELDS.len())?;
                $(if let Some(value) = record_value!(self $place $name) {
                    line.serialize_field(stringify!($name), value)?;
                })+
                line.end()
            }
        }

        record_structs! { [] [] [] $({ $(#[doc = $doc])+ $place $name: $type })+ }
    };
}

/// The protocol of a field, for the table.
macro_rules! record_protocol {
    (always) => {
        "common"
    };
    ($protocol:ident) => {
        stringify!($protocol)
    };
}

/// The value of one field.
macro_rules! record_value {
    ($record:ident always $name:ident) => {
        Some(&$record.$name)
    };
    ($record:ident common $name:ident) => {
        $record.$name.as_ref()
    };
    ($record:ident $protocol:ident $name:ident) => {
        $record.$protocol.as_ref().and_then(|fields| fields.$name.as_ref())
    };
}

/// Sorts the fields by where they belong, one after the other, and then declares the structs. A new protocol is one
/// more list here.
macro_rules! record_structs {
    ([$($always:tt)*] [$($common:tt)*] [$($http:tt)*] { $(#[$doc:meta])+ always $name:ident: $type:ty } $($rest:tt)*) => {
        record_structs! { [$($always)* $(#[$doc])+ $name: $type,] [$($common)*] [$($http)*] $($rest)* }
    };
    ([$($always:tt)*] [$($common:tt)*] [$($http:tt)*] { $(#[$doc:meta])+ common $name:ident: $type:ty } $($rest:tt)*) => {
        record_structs! { [$($always)*] [$($common)* $(#[$doc])+ $name: $type,] [$($http)*] $($rest)* }
    };
    ([$($always:tt)*] [$($common:tt)*] [$($http:tt)*] { $(#[$doc:meta])+ http $name:ident: $type:ty } $($rest:tt)*) => {
        record_structs! { [$($always)*] [$($common)*] [$($http)* $(#[$doc])+ $name: $type,] $($rest)* }
    };
    (
        [$($(#[$always_doc:meta])+ $always:ident: $always_type:ty,)+]
        [$($(#[$common_doc:meta])+ $common:ident: $common_type:ty,)+]
        [$($(#[$http_doc:meta])+ $http:ident: $http_type:ty,)+]
    ) => {
        /// One audit record: fields that all protocols share, and one struct for each protocol. Unknown fields stay
        /// `None` and are omitted from the line, in which all fields are side by side. Start with [`Record::new`],
        /// fill in the fields as they become known, and retain the record for the outcome ([`Record::outcome`]).
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Record {
            $($(#[$always_doc])+ pub $always: $always_type,)+
            $($(#[$common_doc])+ pub $common: Option<$common_type>,)+
            /// What only a request of HTTP has.
            pub http: Option<HttpFields>,
        }

        /// The fields of an HTTP request.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct HttpFields {
            $($(#[$http_doc])+ pub $http: Option<$http_type>,)+
        }

        impl Record {
            /// Creates a record of which nothing else is known.
            pub(super) fn blank($($always: $always_type),+) -> Record {
                Record { $($always,)+ $($common: None,)+ http: None }
            }
        }

        impl<'de> Deserialize<'de> for Record {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Record, D::Error> {
                let flat = Flat::deserialize(from)?;
                let http = HttpFields { $($http: flat.$http,)+ };
                Ok(Record {
                    $($always: flat.$always.ok_or_else(|| D::Error::missing_field(stringify!($always)))?,)+
                    $($common: flat.$common,)+
                    http: (http != HttpFields::default()).then_some(http),
                })
            }
        }
    };
}
