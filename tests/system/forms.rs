//! Forms in which servers repeat a value or a session, in addition to those in the scrubber's own tests.

use data_encoding::HEXLOWER;
use onecli_tests::client::curl;
use onecli_tests::daemon::Granted;

use crate::scene::{API_V6, Scene, curl_with_key};

/// A path whose response has these fields and this body.
fn issue(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(name, text)| format!("{name}={}", HEXLOWER.encode(text.as_bytes())));
    format!("/issue?{}", fields.collect::<Vec<_>>().join("&"))
}

/// The agent's view of a service that sets a cookie with this value, and repeats a text in a field and in the body.
fn session(scene: &Scene, cookie: &str, repeated: &str) -> String {
    let fields = [
        ("cookie", format!("sid={cookie}; Path=/")),
        ("header", format!("x-session: {repeated}")),
        ("body", format!("<p>session: {repeated} </p>\n")),
    ];
    let path = issue(&fields.each_ref().map(|(name, text)| (*name, text.as_str())));
    let run =
        curl_with_key(&scene.url(&path), &["--include"]).env("API_KEY", &scene.outside_grant.placeholder);
    scene.daemon.explicit(&scene.outside.token, run).outcome().ok("a session")
}

#[test]
fn session_is_masked_in_forms_that_frameworks_repeat() {
    let scene = Scene::new();
    let (id, signature) = ("kTqZb3WnXcVm7LpRsD2fGh4J", "9pLk2mNbVcXz4aSdFgHj0qWe");
    let letters = "kTqZbWnXcVmLpRsDfGhJyUiOaEwBtNxQ";
    for (cookie, repeated) in [
        (format!("s%3A{id}.{signature}"), format!("s:{id}.{signature}")),
        (format!("s%3A{id}.{signature}"), id.to_owned()),
        (format!("{id}%3D%3D"), format!("{id}==")),
        (format!("{id}%2B{signature}%2F"), format!("{id}+{signature}/")),
        (format!("\"{id}\""), id.to_owned()),
        (format!("{id}%2F"), format!("{id}%2f")),
        (letters.to_owned(), letters.to_owned()),
        ("480210937746".to_owned(), "480210937746".to_owned()),
        ("kTq3Z-Wn7X_1a".to_owned(), "kTq3Z-Wn7X_1a".to_owned()),
    ] {
        let out = session(&scene, &cookie, &repeated);
        assert!(out.contains("sid=onecli_ss_") && out.contains("session: *"), "{cookie}: {out}");
        assert!(!out.contains(&repeated), "{cookie}: {out}");
    }
    let path = issue(&[("cookie", &format!("a=1; Path=/{id}; Domain={id}.api.test; Expires={id}; Secure"))]);
    let run =
        curl_with_key(&scene.url(&path), &["--include"]).env("API_KEY", &scene.outside_grant.placeholder);
    let out = scene.daemon.explicit(&scene.outside.token, run).outcome().ok("attributes");
    assert!(out.contains("; Path=/; Secure") && !out.contains(id), "{out}");
}

/// A secret for Basic credentials at its own host.
fn basic(scene: &Scene, value: &str) -> Granted {
    let host = format!("{API_V6}:{}", scene.upstream.https_addr().port());
    scene.daemon.add_secret("password", value, &["--host", &host, "--basic", "me"]);
    scene.daemon.grant(&scene.outside, "password")
}

/// The agent's view of a service that received the password and responds with this body.
fn answered(scene: &Scene, password: &Granted, body: &str) -> String {
    let url = scene.upstream.https_url(API_V6, &issue(&[("body", body)]));
    let run = curl(&url).args(["-u", &format!("me:{}", password.placeholder)]);
    scene.daemon.explicit(&scene.outside.token, run).outcome().ok("the password")
}

#[test]
fn non_ascii_value_is_masked_in_other_charsets() {
    let scene = Scene::new();
    let value = "Zürich-é-9f86d081884c7d65";
    let password = basic(&scene, value);
    // A server that interprets the credentials as ISO-8859-1, which RFC 7617 permits.
    let mistaken: String = value.bytes().map(char::from).collect();
    for body in [
        value.to_owned(),
        mistaken.clone(),
        "Z\\u00c3\\u00bcrich-\\u00c3\\u00a9-9f86d081884c7d65".to_owned(),
        "Z&#195;&#188;rich-&#195;&#169;-9f86d081884c7d65".to_owned(),
        "Z\\xc3\\xbcrich-\\xc3\\xa9-9f86d081884c7d65".to_owned(),
        "Z\\xfcrich-\\xe9-9f86d081884c7d65".to_owned(),
        "Z%FCrich-%E9-9f86d081884c7d65".to_owned(),
        "Z%C3%83%C2%BCrich-%C3%83%C2%A9-9f86d081884c7d65".to_owned(),
        "Z&uuml;rich-&eacute;-9f86d081884c7d65".to_owned(),
    ] {
        let out = answered(&scene, &password, &format!("<{body}>\n\n"));
        assert_eq!(out.trim_end(), format!("<{}>", "*".repeat(body.len())), "{body}");
    }
}

#[test]
fn value_is_masked_in_rare_escapes() {
    let scene = Scene::new();
    let value = "sk_9f86d081|884c7d65`x";
    let password = basic(&scene, value);
    let each = |escape: fn(u32) -> String| value.chars().map(|c| escape(u32::from(c))).collect::<String>();
    let wide: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [
        value.replace('_', "&UnderBar;").replace('|', "&VerticalLine;").replace('`', "&DiacriticalGrave;"),
        each(|code| format!("&#{code}")),
        each(|code| format!("&#x0000000{code:x};")),
        each(|code| format!("%u{code:04x}")),
        each(|code| format!("\\x{{{code:x}}}")),
        each(|code| format!("\\u{{{code:x}}}")),
        each(|code| format!("\\{code:x} ")).trim_end().to_owned(),
        each(|code| format!("={code:02X}")),
        data_encoding::BASE64.encode(&wide),
    ] {
        let out = answered(&scene, &password, &format!("<{body}>\n\n"));
        // The last character of the base64 text encodes only zero bits.
        let left = out.trim_end().chars().filter(|c| !"<*=>".contains(*c)).count();
        assert!(left <= 1 && out.contains(&"*".repeat(value.len())), "{body}: {out}");
    }
}
