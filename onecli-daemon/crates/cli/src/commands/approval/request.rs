//! The form in which commands print a pending request.

use onecli_api::ApprovalView;

pub(crate) fn request(one: &ApprovalView) -> String {
    let query = one.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{} {}{}{query}", one.method, one.authority, one.path)
}
