//! The values that a response is searched for.

use std::sync::Arc;

use super::exchange::unopened;
use super::gateway::Gateway;
use super::scrub::{Newer, Scrubber};
use crate::model::{AgentId, Refusal, WireForm};
use crate::policy::Watch;
use crate::vault::Credentials;

/// Looks for every value that must not come back from this host.
pub(super) async fn scrubber(
    gateway: &Gateway,
    agent: AgentId,
    watches: &[Watch],
) -> Result<Scrubber, Refusal> {
    let mut scrubber = Scrubber::default();
    let is_minted = |watch: &&Watch| watch.secret().profile.mint.is_some();
    let minted: Vec<Watch> = watches.iter().filter(is_minted).cloned().collect();
    if !minted.is_empty() {
        let credentials = Arc::clone(&gateway.credentials);
        // Counted before the tokens are asked for: none is missed.
        let purchases = credentials.purchases();
        scrubber.follow(Box::new(Minted { credentials, watches: minted, purchases }));
    }
    for watch in watches {
        let forms = gateway.credentials.watched(agent, watch).await;
        scrubber.watch(&forms.map_err(|error| unopened(watch.secret(), &error))?);
    }
    Ok(scrubber)
}

/// Tokens that are bought while an answer is under way, by this request or another.
struct Minted {
    credentials: Arc<Credentials>,
    watches: Vec<Watch>,
    purchases: u64,
}

impl Newer for Minted {
    fn newer(&mut self) -> Vec<WireForm> {
        let purchases = self.credentials.purchases();
        if std::mem::replace(&mut self.purchases, purchases) == purchases {
            return Vec::new();
        }
        self.watches.iter().flat_map(|watch| self.credentials.tokens(watch)).collect()
    }
}

/// Does no credential for this host ever leave, so that none can be echoed? SDKs rely on ranges to fetch large objects in
/// parts.
pub(super) async fn only_signed(gateway: &Gateway, agent: AgentId, watches: &[Watch]) -> bool {
    for watch in watches {
        if !gateway.credentials.stays(agent, watch).await {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::inject::{basic, set_query};
    use crate::http::replace::{StandIn, in_basic, in_json, in_query};
    use crate::model::{Placement, SecretValue};

    const VALUE: &str = r#"sk/real+0f3A~="9%Zq w"#;

    /// What leaves the host by each placement.
    fn sent() -> Vec<(Placement, String)> {
        let value = SecretValue::new(VALUE.as_bytes().to_vec()).unwrap();
        let forms = ["PLACE".to_owned()];
        let stand_in = StandIn { forms: &forms };
        let at = |site: &str| Placement::Replace { at: site.parse().unwrap() };
        let replaced_basic = |pair: &str| {
            let given = format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", given.parse().unwrap());
            in_basic(&mut headers, &stand_in, &value).unwrap();
            headers["authorization"].to_str().unwrap().to_owned()
        };
        let body = in_json(br#"{"a": "PLACE"}"#, &"/a".parse().unwrap(), &stand_in, &value).unwrap();
        let mut all = vec![
            (Placement::bearer(), format!("Bearer {VALUE}")),
            (Placement::header("Authorization: token {secret}").unwrap(), format!("token {VALUE}")),
            (Placement::query("key").unwrap(), set_query(Some("a=1"), "key", &value).unwrap()),
            (at("query:key"), in_query(Some("key=x-PLACE&b=2"), "key", &stand_in, &value).unwrap()),
            (at("json:/a"), String::from_utf8(body.to_vec()).unwrap()),
        ];
        for user in ["", "a", "ab", "abc"] {
            all.push((Placement::basic(user).unwrap(), basic(user, &value)));
            all.push((at("basic"), replaced_basic(&format!("{user}:PLACE"))));
            all.push((at("basic"), replaced_basic(&format!("{user}PLACE:x"))));
        }
        all
    }

    /// Documented encodings of a whole text, each with its decoder. A mask decodes to bytes that no text has.
    type Coding = (&'static str, fn(&[u8]) -> Vec<u8>, fn(&[u8]) -> Vec<u8>);

    fn unmasked(text: &[u8], digit: u8) -> Vec<u8> {
        text.iter().map(|byte| if *byte == b'*' { digit } else { *byte }).collect()
    }

    const CODINGS: &[Coding] = &[
        ("plain", |text| text.to_vec(), |text| unmasked(text, 0)),
        (
            "hex",
            |text| data_encoding::HEXLOWER.encode(text).into_bytes(),
            |text| data_encoding::HEXLOWER.decode(&unmasked(text, b'0')).unwrap(),
        ),
        (
            "HEX",
            |text| data_encoding::HEXUPPER.encode(text).into_bytes(),
            |text| data_encoding::HEXUPPER.decode(&unmasked(text, b'0')).unwrap(),
        ),
        (
            "base64",
            |text| data_encoding::BASE64.encode(text).into_bytes(),
            |text| data_encoding::BASE64.decode(&unmasked(text, b'A')).unwrap(),
        ),
        (
            "base64url",
            |text| data_encoding::BASE64URL.encode(text).into_bytes(),
            |text| data_encoding::BASE64URL.decode(&unmasked(text, b'A')).unwrap(),
        ),
        (
            "UTF-16LE",
            |text| text.iter().flat_map(|byte| [*byte, 0]).collect(),
            |text| unmasked(text, 0).chunks(2).map(|pair| pair[0]).collect(),
        ),
        (
            "UTF-16BE",
            |text| text.iter().flat_map(|byte| [0, *byte]).collect(),
            |text| unmasked(text, 0).chunks(2).map(|pair| pair[1]).collect(),
        ),
        (
            "percent-encoded base64",
            |text| {
                data_encoding::BASE64
                    .encode(text)
                    .bytes()
                    .flat_map(|b| format!("%{b:02x}").into_bytes())
                    .collect()
            },
            |text| {
                let text = unmasked(text, b'A');
                let decoded: Vec<u8> = percent_encoding::percent_decode(&text).collect();
                // Three masks are one character.
                let decoded = String::from_utf8(decoded).unwrap().replace("AAA", "A");
                data_encoding::BASE64.decode(decoded.as_bytes()).unwrap()
            },
        ),
    ];

    /// The request head as an upstream echoes it: whatever the placement, whatever the encoding, wherever it stands, and in
    /// whatever pieces, nothing of what was sent for the value is left but its first and last character.
    #[test]
    fn sent_forms_are_scrubbed_in_every_encoding() {
        let value = SecretValue::new(VALUE.as_bytes().to_vec()).unwrap();
        for (placement, text) in sent() {
            let forms = placement.wire_forms(&value);
            let find = |form: &WireForm| {
                Some((text.find(std::str::from_utf8(form.expose()).ok()?)?, form.expose().len()))
            };
            let (from, length) = forms.iter().filter_map(find).max_by_key(|found| found.1).unwrap();
            for before in ["", "x", "xy"] {
                let text = format!("{before}{text} HTTP/1.1");
                let own = before.len() + from..before.len() + from + length;
                for (coding, encode, decode) in CODINGS {
                    let encoded = encode(text.as_bytes());
                    for size in [1, 7, encoded.len()] {
                        let mut scrubber = Scrubber::default();
                        scrubber.watch(&forms);
                        let mut out = Vec::new();
                        for piece in encoded.chunks(size) {
                            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
                        }
                        out.extend_from_slice(&scrubber.finish());
                        let seen = decode(&out);
                        let left = own.clone().filter(|at| seen[*at] == text.as_bytes()[*at]);
                        let inner = own.start + 1..own.end - 1;
                        let told = left.filter(|at| inner.contains(at)).count();
                        assert_eq!(
                            told,
                            0,
                            "{placement} in {coding}, pieces of {size}: {}",
                            seen.escape_ascii()
                        );
                    }
                }
            }
        }
    }
}
