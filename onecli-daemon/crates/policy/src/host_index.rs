//! An index by host, in which lookups do not depend on the number of other hosts.

use std::collections::HashMap;

use onecli_model::{Host, HostPattern};

/// Items by host pattern. A lookup takes one step for each label of the host, however many patterns there are.
#[derive(Debug)]
pub(super) struct HostIndex<T> {
    groups: Vec<Vec<T>>,
    exact: HashMap<Host, usize>,
    one_label: HashMap<String, usize>,
    any_depth: HashMap<String, usize>,
}

/// The groups of items that are stored for a host. Hosts with the same groups have the same items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HostGroups(Vec<usize>);

impl HostGroups {
    /// Reports whether nothing is stored for the host.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for HostIndex<T> {
    fn default() -> HostIndex<T> {
        HostIndex {
            groups: Vec::new(),
            exact: HashMap::new(),
            one_label: HashMap::new(),
            any_depth: HashMap::new(),
        }
    }
}

impl<T> HostIndex<T> {
    /// Stores an item for every host of this pattern.
    pub(super) fn insert(&mut self, pattern: &HostPattern, item: T) {
        let next = self.groups.len();
        let group = match pattern {
            HostPattern::Exact(host) => *self.exact.entry(host.clone()).or_insert(next),
            HostPattern::OneLabel(suffix) => *self.one_label.entry(suffix.clone()).or_insert(next),
            HostPattern::AnyDepth(suffix) => *self.any_depth.entry(suffix.clone()).or_insert(next),
        };
        if group == next {
            self.groups.push(Vec::new());
        }
        self.groups[group].push(item);
    }

    /// The groups for this host: at most one for its name, and two for each of its labels.
    pub(super) fn find(&self, host: &Host) -> HostGroups {
        let mut found: Vec<usize> = self.exact.get(host).copied().into_iter().collect();
        let Some(name) = host.as_name() else { return HostGroups(found) };
        if self.one_label.is_empty() && self.any_depth.is_empty() {
            return HostGroups(found);
        }
        if let Some((_, suffix)) = name.split_once('.') {
            found.extend(self.one_label.get(suffix));
        }
        found.extend(name.match_indices('.').filter_map(|(dot, _)| self.any_depth.get(&name[dot + 1..])));
        HostGroups(found)
    }

    /// The items of these groups. An item that was stored for several patterns may occur several times.
    pub(super) fn items<'s>(&'s self, groups: &'s HostGroups) -> impl Iterator<Item = &'s T> {
        groups.0.iter().filter_map(|group| self.groups.get(*group)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index returns the items whose patterns match.
    #[test]
    fn lookup_agrees_with_the_patterns() {
        let patterns: Vec<HostPattern> = [
            "a.test",
            "b.a.test",
            "*.a.test",
            "**.a.test",
            "**.b.a.test",
            "*.b.a.test",
            "192.0.2.7",
            "**.z.test",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let mut index = HostIndex::default();
        for pattern in patterns.iter().chain(&patterns[..2]) {
            index.insert(pattern, pattern.clone());
        }
        for host in
            ["a.test", "b.a.test", "c.b.a.test", "d.c.b.a.test", "xa.test", "test", "192.0.2.7", "z.test"]
        {
            let host: Host = host.parse().unwrap();
            let groups = index.find(&host);
            let mut found: Vec<String> = index.items(&groups).map(ToString::to_string).collect();
            found.sort();
            found.dedup();
            let mut expected: Vec<String> =
                patterns.iter().filter(|pattern| pattern.matches(&host)).map(ToString::to_string).collect();
            expected.sort();
            assert_eq!(found, expected, "{host}");
            assert_eq!(groups.is_empty(), expected.is_empty(), "{host}");
        }
        let sibling = |host: &str| index.find(&host.parse().unwrap());
        assert_eq!(sibling("x.y.a.test"), sibling("z.w.a.test"), "names below a wildcard share their groups");
    }
}
