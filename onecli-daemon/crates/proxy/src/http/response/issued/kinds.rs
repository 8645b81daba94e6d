//! The kinds of credentials that one response is searched for.

use onecli_model::issued::IssuedShape;
use onecli_model::{MaskIssued, Placeholder};

/// Longest text that an operator may put before a placeholder ([`onecli_model::Shape`]), in bytes.
const MAX_DRESS: usize = 32;

/// The kinds of credentials that the services of all used secrets issue.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds {
    kinds: Vec<(&'static IssuedShape, MaskIssued)>,
}

/// A prefix that is found anywhere in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix {
    pub(super) text: &'static [u8],
    /// Minimum number of characters after the prefix.
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

    /// The kinds that are listed for a member with this name, which is in lower case.
    pub(super) fn listed(&self, name: &[u8]) -> Vec<usize> {
        let is_it = |own: &String| own.as_bytes().eq_ignore_ascii_case(name);
        (0..self.kinds.len()).filter(|at| self.kinds[*at].0.members.iter().any(is_it)).collect()
    }

    /// Returns whether the value of such a member is a credential, and if so, whether it is masked. The first bytes
    /// of the value are enough.
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

    /// Returns whether the header field contains a credential, and if so, whether it is masked.
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

/// Returns whether the value is only a placeholder, with the operator's prefix.
fn is_placeholder(value: &[u8]) -> bool {
    value
        .len()
        .checked_sub(Placeholder::LEN)
        .is_some_and(|at| at <= MAX_DRESS && Placeholder::find_all(&value[at..]).next().is_some())
}
