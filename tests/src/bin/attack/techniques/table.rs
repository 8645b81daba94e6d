//! All rows, grouped by family.

use super::{
    agents, certificate, confirm, cost, credential, dns, echo, file, header, host, identity, issue, memory,
    oracle, output, path, placeholder, project, request, session, timing,
};
use crate::stage::row::Row;

const FAMILIES: &[&[Row]] = &[
    oracle::ROWS,
    timing::ROWS,
    echo::ROWS,
    agents::ROWS,
    confirm::ROWS,
    placeholder::ROWS,
    project::ROWS,
    session::ROWS,
    credential::ROWS,
    issue::ROWS,
    header::ROWS,
    path::ROWS,
    request::ROWS,
    identity::ROWS,
    dns::ROWS,
    file::ROWS,
    output::ROWS,
    host::ROWS,
    certificate::ROWS,
    cost::ROWS,
    memory::ROWS,
];

pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().copied().flatten()
}
