//! JSON Web Tokens signed with RS256 (RFC 7515, RFC 7518 section 3.3).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Parses a private key: the base64 of its DER form, PKCS #8 or PKCS #1, with or without PEM lines around it.
pub(super) fn key(text: &str) -> Option<RsaKeyPair> {
    let body: Zeroizing<String> =
        Zeroizing::new(text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect());
    let der = Zeroizing::new(BASE64.decode(body.as_bytes()).ok()?);
    RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der)).ok()
}

/// Signs `claims`.
pub(super) fn sign(key: &RsaKeyPair, claims: &Value, key_id: Option<&str>) -> Option<Zeroizing<String>> {
    let mut head = json!({"alg": "RS256", "typ": "JWT"});
    if let Some(id) = key_id {
        head["kid"] = id.into();
    }
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let mut text = Zeroizing::new(format!("{}.{}", part(&head), part(claims)));
    let mut signature = vec![0; key.public_modulus_len()];
    // PKCS #1 v1.5 signatures are deterministic: the generator is unused.
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).ok()?;
    text.push('.');
    BASE64URL_NOPAD.encode_append(&signature, &mut text);
    Some(text)
}
