//! The binding of a secret's wrap: besides its row, the wrap is bound to where the value may go.

use std::io;

use onecli_model::{Placement, Profile, Secret, SecretName, Target, ValueClass};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// SHA-256 over everything that decides where a secret's value goes. If an attacker changes that in the database,
/// bypassing the daemon, the value can no longer be decrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding(pub(super) [u8; 32]);

/// The digested data, as JSON without white space, with the members in this order. A new member here, in [`Target`]
/// or in [`Placement`] is bound without further code. After a release, a new member must be omitted while it has
/// its default (`skip_serializing_if`), or stored values can no longer be opened. No member may contain an
/// unordered map.
#[derive(Serialize)]
struct Bound<'s> {
    name: &'s SecretName,
    target: &'s Target,
    placement: &'s Placement,
    profile: &'s Profile,
    env: &'s Option<String>,
    /// The class decides which bytes of responses are held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: &'s Option<ValueClass>,
}

impl Binding {
    pub(super) fn of(secret: &Secret) -> Binding {
        // Destructured in full, so that each new field requires a decision here.
        let Secret { id: _, name, target, placement, profile, env, enabled: _, version: _, class, sealed: _ } =
            secret;
        Binding::digest(&Bound { name, target, placement, profile, env, class })
    }

    fn digest(what: &impl Serialize) -> Binding {
        let mut digest = Digesting(Sha256::new_with_prefix(b"onecli/2/binding\0"));
        #[expect(
            clippy::expect_used,
            reason = "a digest takes every byte, and the model's types are valid JSON"
        )]
        serde_json::to_writer(&mut digest, what).expect("the model's types are always valid JSON");
        Binding(digest.0.finalize().into())
    }
}

struct Digesting(Sha256);

impl io::Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use onecli_store::testing::secret;
    use serde_json::{Value, json};

    use super::*;

    /// All variants of `value` with one change, addition or removal.
    fn variants(value: &Value) -> Vec<Value> {
        match value {
            Value::Null => vec![json!("x"), json!([])],
            Value::Bool(is) => vec![json!(!is)],
            Value::Number(number) => vec![json!(number.as_u64().unwrap() + 1)],
            Value::String(text) => vec![json!(format!("{text}x")), Value::Null],
            Value::Array(items) => {
                let mut all: Vec<Value> = (0..items.len())
                    .flat_map(|at| {
                        let replace = move |new: Value| {
                            let mut items = items.clone();
                            items[at] = new;
                            Value::Array(items)
                        };
                        variants(&items[at]).into_iter().map(replace).collect::<Vec<_>>()
                    })
                    .collect();
                all.push(Value::Array([items.as_slice(), &[json!("x")]].concat()));
                if !items.is_empty() {
                    all.push(Value::Array(items[1..].to_vec()));
                }
                all
            }
            Value::Object(members) => {
                let mut all = Vec::new();
                for (name, member) in members {
                    for new in variants(member) {
                        let mut members = members.clone();
                        members.insert(name.clone(), new);
                        all.push(Value::Object(members));
                    }
                    let mut members = members.clone();
                    members.remove(name);
                    all.push(Value::Object(members));
                }
                all
            }
        }
    }

    /// Covers all current and future members of the structures.
    #[test]
    fn any_change_of_any_field_changes_the_digest() {
        let secret = secret(1, "key");
        let secret = Secret { class: Some(ValueClass::ISSUED), ..secret };
        let Secret { name, target, placement, profile, env, class, .. } = &secret;
        let bound = serde_json::to_value(Bound { name, target, placement, profile, env, class }).unwrap();
        let original = Binding::digest(&bound);
        let all = variants(&bound);
        assert!(all.len() > 30, "{}", all.len());
        let mut seen = std::collections::HashSet::from([original.0]);
        for variant in all {
            assert!(seen.insert(Binding::digest(&variant).0), "{variant}");
        }
    }

    /// Checked on the types: every field that controls the destination is bound, fields of the row alone are not.
    #[test]
    fn binding_covers_every_field_that_controls_the_destination() {
        let base = secret(1, "key");
        let of = Binding::of(&base);
        let mut same = secret(2, "key");
        (same.version, same.enabled) = (7, false);
        same.sealed.0.push(1);
        assert!(Binding::of(&same) == of);
        let changes: [fn(&mut Secret); 9] = [
            |s| s.name = "other".parse().unwrap(),
            |s| s.target.host = "api.example.com".parse().unwrap(),
            |s| s.target.port = 443,
            |s| s.target.methods = onecli_model::MethodSet::default(),
            |s| s.target.paths.truncate(1),
            |s| s.target.allow_plaintext = true,
            |s| s.placement = Placement::query("key").unwrap(),
            |s| s.env = None,
            |s| s.class = Some(ValueClass::ISSUED),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut edited = base.clone();
            change(&mut edited);
            assert!(Binding::of(&edited) != of, "change {number}");
        }
    }

    /// Frozen: read [`Bound`] before you change it.
    #[test]
    fn digest_is_frozen() {
        let digest = |value: &Value| data_encoding::HEXLOWER.encode(&Binding::digest(value).0);
        assert_eq!(digest(&json!({"name": "key", "target": {"port": 443}})), JSON_DIGEST);
        let Secret { name, target, placement, profile, env, class, .. } = &secret(1, "key");
        let bound = serde_json::to_string(&Bound { name, target, placement, profile, env, class }).unwrap();
        assert_eq!(bound, BOUND);
    }

    /// sha256 of `onecli/2/binding`, NUL, `{"name":"key","target":{"port":443}}`.
    const JSON_DIGEST: &str = "da4864c9c3a9688985e6ac0851c37ff03223cfe3a909cb7fa92f4cebb74c8b00";
    const BOUND: &str = concat!(
        r#"{"name":"key","target":{"host":"*.example.com","port":8443,"methods":["GET","POST"],"#,
        r#""paths":["/v1/**","/v2/*/items"],"allow_plaintext":false},"#,
        r#""placement":{"kind":"header","name":"x-api-key","template":"{secret}"},"profile":{},"env":"EXAMPLE_KEY"}"#
    );
}
