//! The upstream receives every request body in full, for all methods and framings.

use onecli_tests::upstream::Upstream;

use crate::scene::{API, KEY, Scene, Way, in_shell};

/// RFC 9110 section 9.3.1: content in GET and HEAD has no defined meaning, and is forwarded.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// With a Content-Length; chunked over HTTP/1.1; with and without a Content-Length over HTTP/2.
const FRAMINGS: [&[&str]; 4] = [
    &["--http1.1", "--data-binary", "@-"],
    &["--http1.1", "--upload-file", "-", "--header", "Expect:"],
    &["--http2", "--data-binary", "@-"],
    &["--http2", "--upload-file", "-", "--header", "Expect:"],
];

#[test]
fn bodies_of_all_methods_and_framings_arrive() {
    for alpn in [&["http/1.1"][..], &["h2"]] {
        let scene = Scene::with(Upstream::builder(&[API]).alpn(alpn).start(), &["--bearer"]);
        for method in METHODS {
            for framing in FRAMINGS {
                scene.upstream.clear();
                let curl = onecli_tests::client::curl(&scene.url("/upload"));
                // curl waits for content, which a response to HEAD does not have.
                let limit = if method == "HEAD" { "2" } else { "20" };
                let curl = curl.args(["--request", method, "--max-time", limit]).args(framing);
                let script = format!(r#"printf %5000s x | "$@" -H "Authorization: Bearer ${KEY}""#);
                let outcome = scene.run(Way::Explicit, in_shell(&curl, &script));
                let seen = scene.upstream.requests();
                let lengths: Vec<_> =
                    seen.iter().map(|seen| (seen.method.as_str(), seen.body.len())).collect();
                assert_eq!(lengths, [(method, 5000)], "{alpn:?} {framing:?}: {outcome:?}");
            }
        }
    }
}
