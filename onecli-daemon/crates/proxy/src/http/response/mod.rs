//! The response on its way to the agent.

pub(crate) mod answer;
pub(crate) mod issued;
pub(crate) mod ranges;
pub(crate) mod returned;
mod scrubbed;
