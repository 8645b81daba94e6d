//! What is looked for in one response.

use onecli_model::issued::IssuedShape;
use onecli_model::{MaskIssued, Placeholder};

/// Longest text that an operator may have put before a placeholder ([`onecli_model::Shape`]), in bytes.
const MAX_DRESS: usize = 32;

/// The kinds of credentials of every secret that the request used.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds {
    kinds: Vec<(&'static IssuedShape, MaskIssued)>,
}

/// A beginning that is found wherever it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix {
    pub(super) text: &'static [u8],
    /// So many characters follow, at least.
    pub(super) length: usize,
    pub(super) is_masked: bool,
}

impl Kinds {
    pub(super) fn new(kinds: Vec<(&'static IssuedShape, MaskIssued)>) -> Kinds {
        Kinds { kinds }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The kinds that stand in a member of this name, which is in lower case.
    pub(super) fn listed(&self, name: &[u8]) -> Vec<usize> {
        let is_it = |own: &String| own.as_bytes().eq_ignore_ascii_case(name);
        (0..self.kinds.len()).filter(|at| self.kinds[*at].0.members.iter().any(is_it)).collect()
    }

    /// Is a value of such a member a credential, and is it masked then? Its first bytes are enough to tell.
    pub(super) fn judge(&self, listed: &[usize], value: &[u8]) -> Option<bool> {
        if is_placeholder(value) {
            return None;
        }
        let issued = listed.iter().map(|at| &self.kinds[*at]).filter(|(kind, _)| {
            let behind = |prefix: &String| value.strip_prefix(prefix.as_bytes());
            match kind.prefixes.as_slice() {
                [] => value.len() >= kind.length,
                prefixes => prefixes.iter().filter_map(behind).any(|rest| rest.len() >= kind.length),
            }
        });
        issued.map(|(_, mode)| *mode != MaskIssued::None).reduce(|one, other| one || other)
    }

    /// Does the header field hold a credential, and is it masked then?
    pub(super) fn header(&self, name: &str, value: &[u8]) -> Option<bool> {
        let is_it = |own: &String| own.eq_ignore_ascii_case(name);
        let listed = (0..self.kinds.len()).filter(|at| self.kinds[*at].0.headers.iter().any(is_it));
        self.judge(&listed.collect::<Vec<_>>(), value)
    }

    pub(super) fn prefixes(&self) -> Vec<Prefix> {
        let all = self.kinds.iter().flat_map(|(kind, mode)| {
            let is_masked = *mode == MaskIssued::All;
            kind.prefixes.iter().map(move |text| Prefix {
                text: text.as_bytes(),
                length: kind.length,
                is_masked,
            })
        });
        all.collect()
    }
}

/// A placeholder, with what an operator has it begin with, and nothing else.
fn is_placeholder(value: &[u8]) -> bool {
    value
        .len()
        .checked_sub(Placeholder::LEN)
        .is_some_and(|at| at <= MAX_DRESS && Placeholder::find_all(&value[at..]).next().is_some())
}
