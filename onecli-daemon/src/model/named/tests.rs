//! Resources that requests name besides their URL.

use super::*;

/// The places of a request's resources, as text, `?` for one that cannot be read.
fn places(line: &str, fields: &[(&str, &str)]) -> Vec<String> {
    let (method, url) = line.split_once(' ').unwrap();
    let (authority, path) = url.split_at(url.find('/').unwrap());
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let request = Naming {
        method: &Method::from_bytes(method.as_bytes()).unwrap(),
        authority: &Authority::parse(authority, Some(443)).unwrap(),
        path: &CanonicalPath::parse(path).unwrap(),
    };
    let fields = || fields.iter().map(|(name, value)| (*name, value.as_bytes()));
    let named = named_resources(&request, fields, query).unwrap();
    let text = |(authority, path): &(Authority, CanonicalPath)| format!("{authority}{path}");
    let all = |one: &NamedResource| match one.places.as_slice() {
        [] => vec!["?".to_owned()],
        places => places.iter().map(text).collect(),
    };
    named.iter().flat_map(all).collect()
}

#[test]
fn sources_of_copies() {
    let check = |host: &str, name: &str, value: &str, expected: &str| {
        assert_eq!(places(&format!("PUT {host}/x"), &[(name, value)]), [expected], "{host} {name} {value}");
    };
    let amz = "x-amz-copy-source";
    check("s3.test", amz, "/b/private/k?versionId=3", "s3.test:443/b/private/k");
    check("s3.test", amz, "b/private/k%20x", "s3.test:443/b/private/k%20x");
    check("s3.test", "x_amz_copy_source", "/b/k", "s3.test:443/b/k");
    assert_eq!(places("PUT b.test/x", &[(amz, "/b/k")]), ["b.test:443/k", "b.test:443/b/k"]);
    check("b.s3.eu-west-1.amazonaws.com", amz, "/b/k", "b.s3.eu-west-1.amazonaws.com:443/k");
    check("b.s3.eu-west-1.amazonaws.com", amz, "/c/k", "c.s3.eu-west-1.amazonaws.com:443/k");
    check("b.c.s3-fips.us-east-1.amazonaws.com", amz, "/d/k", "d.s3-fips.us-east-1.amazonaws.com:443/k");
    check("s3.test", amz, "arn:aws:s3:eu-west-1:1:accesspoint/a/object/k", "?");
    check("s3.test", amz, "/b/k?x", "?");
    check("s3.test", amz, "/b/é", "?");
    check("s3.test", amz, "k", "?");
    check(
        "b-1.cos.ap-x.myqcloud.com",
        "x-cos-copy-source",
        "c-1.cos.ap-x.myqcloud.com/k",
        "c-1.cos.ap-x.myqcloud.com:443/k",
    );
    check("a.blob.test", "x-ms-copy-source", "https://b.blob.test/c/d?sig=1", "b.blob.test:443/c/d");
    check("a.blob.test", "x-ms-copy-source", "https://me@b.test/c", "?");
    check("a.dfs.test", "x-ms-rename-source", "/fs/p", "a.dfs.test:443/fs/p");
    check("a.test", "x-ms-previous-snapshot-url", "https://a.test/p", "a.test:443/p");
    check("b.oss-x.aliyuncs.com", "x-oss-symlink-target", "private/k", "b.oss-x.aliyuncs.com:443/private/k");
    for service in ["goog", "oss", "bce", "obs", "tos", "kss", "nos", "qs", "upyun"] {
        check("h.test", &format!("x-{service}-copy-source"), "/b/k", "h.test:443/b/k");
        check("h.test", &format!("x-{service}-move-source"), "/b/k", "h.test:443/b/k");
    }
}

#[test]
fn destinations_and_tags() {
    let destination = |line: &str, value: &str| places(line, &[("Destination", value)]);
    assert_eq!(destination("COPY h.test/a/b", "https://h.test/c"), ["h.test:443/c"]);
    assert_eq!(destination("MOVE h.test/a", "/c/d"), ["h.test:443/c/d"]);
    assert_eq!(destination("COPY h.test/v1/A/c/o", "/d/p"), ["h.test:443/d/p", "h.test:443/v1/A/d/p"]);
    assert_eq!(destination("COPY h.test/v1/A/c/o", "d/p"), ["h.test:443/v1/A/d/p"]);
    assert_eq!(destination("COPY h.test/a", "d/p"), ["?"]);
    assert!(destination("GET h.test/a", "JFK").is_empty());
    let account = [("Destination", "d/p"), ("Destination-Account", "B")];
    assert_eq!(places("COPY h.test/v1/A/c/o", &account), ["h.test:443/v1/B/d/p"]);
    assert_eq!(places("PUT h.test/v1/A/c/o", &[("X-Copy-From", "/d/p")]), ["h.test:443/v1/A/d/p"]);
    let from = [("X-Copy-From-Account", "B"), ("X-Copy-From", "d/p")];
    assert_eq!(places("PUT h.test/v1/A/c/o", &from), ["h.test:443/v1/B/d/p"]);
    let lists = "<https://h.test/a> (<urn:x> [\"e\"]) </b> (Not <DAV:no-lock>)";
    assert_eq!(places("PUT h.test/x", &[("If", lists)]), ["h.test:443/a", "h.test:443/b"]);
    assert!(places("PUT h.test/x", &[("If", "(<opaquelocktoken:1/2>)")]).is_empty());
}

#[test]
fn queries_name_resources_too() {
    assert_eq!(places("PUT h.test/x?X-Amz-Copy-Source=%2Fb%2Fk", &[]), ["h.test:443/b/k"]);
    let mount = "POST h.test/v2/mine/app/blobs/uploads/?mount=sha256:1&from=other/app";
    assert_eq!(places(mount, &[]), ["h.test:443/v2/other/app/blobs/sha256:1"]);
    assert!(places("POST h.test/x?mount=a&from=b", &[]).is_empty());
}

#[test]
fn their_number_is_bounded() {
    let authority = Authority::parse("h.test", Some(443)).unwrap();
    let path = CanonicalPath::parse("/x").unwrap();
    let request = Naming { method: &Method::PUT, authority: &authority, path: &path };
    let of = |count: usize| {
        let fields = || std::iter::repeat_n(("x-amz-copy-source", &b"/b/k"[..]), count);
        named_resources(&request, fields, None).map(|named| named.len())
    };
    assert_eq!((of(MAX_NAMED), of(MAX_NAMED + 1)), (Some(MAX_NAMED), None));
    let lists = "<http://h/>".repeat(1000);
    assert!(named_resources(&request, || std::iter::once(("if", lists.as_bytes())), None).is_none());
}
