//! Refusals of connections and requests.

use onecli_audit::Record;
use onecli_model::{Code, Refusal, RequestId};

use super::Session;
use super::request_audit::RequestAudit;

/// The reason that a record of a refusal names.
pub(crate) struct Reason<'r> {
    code: Code,
    rule: Option<&'r str>,
}

impl From<Code> for Reason<'_> {
    fn from(code: Code) -> Self {
        Reason { code, rule: None }
    }
}

impl<'r> From<&'r Refusal> for Reason<'r> {
    fn from(refusal: &'r Refusal) -> Self {
        Reason { code: refusal.code, rule: refusal.rule.as_deref() }
    }
}

impl Session {
    /// Records a refusal of the connection or of a request on it, and names the agent if the client proves it.
    /// `describe` adds what was refused. Returns the id of the request, for the response.
    pub(crate) async fn refuse(
        &self,
        reason: impl Into<Reason<'_>>,
        describe: impl FnOnce(&mut Record),
    ) -> Option<RequestId> {
        let Reason { code, rule } = reason.into();
        let mut audit = RequestAudit::begin(self).ok()?;
        if let Ok(identity) = self.identify() {
            audit.identify(&identity);
        }
        describe(audit.record());
        audit.refuse_for(code, rule).await;
        audit.request_id()
    }
}
