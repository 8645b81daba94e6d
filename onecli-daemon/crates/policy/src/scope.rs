//! Comparison of a secret's scope with its previous scope.

use onecli_model::Secret;

/// The properties by which `to` has a wider scope than `from`. Empty if the only changes are fewer paths and
/// methods, or other variables.
///
/// The comparison is conservative. A path pattern that is not provably within an old one counts as wider. So does
/// every change of hosts, port, placement, plain-text flag and profile.
pub fn widened(from: &Secret, to: &Secret) -> Vec<&'static str> {
    let (before, after) = (&from.target, &to.target);
    let is_covered = |path| before.paths.iter().any(|old| old.covers(path));
    let all = [
        ("hosts", before.host != after.host),
        ("port", before.port != after.port),
        ("placement", from.placement != to.placement),
        ("plain-text flag", before.allow_plaintext != after.allow_plaintext),
        ("profile", from.profile != to.profile),
        ("methods", !after.methods.is_within(&before.methods)),
        ("paths", !after.paths.iter().all(is_covered)),
    ];
    all.into_iter().filter(|(_, is_wider)| *is_wider).map(|(what, _)| what).collect()
}

#[cfg(test)]
mod tests {
    use onecli_model::Placement;
    use onecli_store::testing::secret;

    use super::*;

    /// A change of a secret, and the properties that become wider.
    type Change<'c> = (fn(&mut Secret), &'c [&'c str]);

    #[test]
    fn only_fewer_paths_and_methods_and_variables_are_narrower() {
        let changes: [Change<'_>; 12] = [
            (|_| (), &[]),
            (|s| s.env = Some("OTHER".to_owned()), &[]),
            (|s| s.target.paths.truncate(1), &[]),
            (|s| s.target.paths = vec!["/v1/models/*".parse().unwrap()], &[]),
            (|s| s.target.methods = vec!["GET".to_owned()].try_into().unwrap(), &[]),
            (|s| s.target.methods = vec!["PUT".to_owned()].try_into().unwrap(), &["methods"]),
            (|s| s.target.methods = Vec::new().try_into().unwrap(), &["methods"]),
            (|s| s.target.paths.push("/v3".parse().unwrap()), &["paths"]),
            (|s| s.target.host = "api.example.com".parse().unwrap(), &["hosts"]),
            (|s| s.target.port = 443, &["port"]),
            (|s| s.target.allow_plaintext = true, &["plain-text flag"]),
            (|s| s.placement = Placement::bearer(), &["placement"]),
        ];
        for (number, (change, expected)) in changes.into_iter().enumerate() {
            let from = secret(1, "key");
            let mut to = from.clone();
            change(&mut to);
            assert_eq!(widened(&from, &to), expected, "change {number}");
        }
    }
}
