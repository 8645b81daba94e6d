//! Resources that requests name in addition to their URL.

use super::*;

/// Returns the places of a request's resources as text, with `?` for a resource that cannot be read.
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
fn copy_sources_are_named_resources() {
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
fn destinations_and_tagged_lists_are_named_resources() {
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
fn number_of_named_resources_is_limited() {
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

#[test]
fn every_repository_of_a_mount_is_named() {
    let check = |query: &str, expected: &[&str]| {
        let line = format!("POST r.test/v2/mine/app/blobs/uploads/?{query}");
        let expected: Vec<String> = expected
            .iter()
            .map(|name| match *name {
                "?" => "?".to_owned(),
                name => format!("r.test:443/v2/{name}/blobs/d"),
            })
            .collect();
        assert_eq!(places(&line, &[]), expected, "{query}");
    };
    check("mount=d&from=mine/base&from=other/x", &["mine/base", "other/x"]);
    check("x=;from=mine/base&mount=d&from=other/x", &["mine/base", "other/x"]);
    check("mount=d&from=mine/base;from=other/x", &["mine/base", "other/x", "mine/base;from=other/x"]);
    check("mount=d&From=other/x", &["other/x"]);
    check("mount=d", &["?"]);
    check("from=other/x", &[]);
    check("mount=d&from=a%20b", &["?"]);
    let of = |line: &str| places(line, &[]);
    let query = "mount=d&from=o/x";
    assert_eq!(
        of(&format!("POST r.test/art/api/v2/m/blobs/uploads/?{query}")),
        ["r.test:443/art/api/v2/o/x/blobs/d"]
    );
    assert_eq!(
        of(&format!("POST r.test/v2/v2/m/blobs/uploads/?{query}")),
        ["r.test:443/v2/o/x/blobs/d", "r.test:443/v2/v2/o/x/blobs/d"]
    );
    for path in
        ["/v2/m/blobs//uploads/", "/v2/m/BLOBS/Uploads", "/v2/m/blobs/uploads;x", "/v2/m/blobs/uploads//"]
    {
        assert_eq!(of(&format!("POST r.test{path}?{query}")), ["r.test:443/v2/o/x/blobs/d"], "{path}");
    }
    let authority = Authority::parse("r.test", Some(443)).unwrap();
    let path = CanonicalPath::parse("/v2/m/blobs/uploads/").unwrap();
    let request = Naming { method: &Method::POST, authority: &authority, path: &path };
    let many = format!("mount=d{}", "&from=x".repeat(MAX_NAMED + 1));
    assert!(named_resources(&request, std::iter::empty::<(&str, &[u8])>, Some(&many)).is_none());
}

#[test]
fn buckets_are_found_in_host_names() {
    let check = |host: &str, value: &str, expected: &[&str]| {
        let line = format!("PUT {host}/x");
        assert_eq!(places(&line, &[("x-amz-copy-source", value)]), expected, "{host} {value}");
    };
    let spaces = "pub.nyc3.digitaloceanspaces.com";
    check(spaces, "/pub/k", &["pub.nyc3.digitaloceanspaces.com:443/k"]);
    check(spaces, "/priv/k", &["priv.nyc3.digitaloceanspaces.com:443/k"]);
    check(spaces, "pub%2Fa%2fk", &["pub.nyc3.digitaloceanspaces.com:443/a/k"]);
    check(spaces, "/priv/k?x=1", &["?"]);
    check(spaces, "//priv/k", &["?"]);
    check(spaces, "/pub/../priv/k", &["?"]);
    check(spaces, "/pub/a//%2e%2e/../priv/k", &["?"]);
    check(spaces, "/pub/%252e%252e/priv/k", &["?"]);
    check(spaces, "/pub/a..b", &["pub.nyc3.digitaloceanspaces.com:443/a..b"]);
    check("pub.acct.r2.cloudflarestorage.com", "/priv/k", &["priv.acct.r2.cloudflarestorage.com:443/k"]);
    check("acct.r2.cloudflarestorage.com", "/priv/k", &["acct.r2.cloudflarestorage.com:443/priv/k"]);
    // The convention of this host is unknown.
    check(
        "pub.store.acme.test",
        "/priv/k",
        &["priv.store.acme.test:443/k", "pub.store.acme.test:443/priv/k"],
    );
    check("pub.s3.acme.test", "/pub/k", &["pub.s3.acme.test:443/k", "pub.s3.acme.test:443/pub/k"]);
    check("minio.acme.test", "/priv/k", &["minio.acme.test:443/priv/k"]);
    check("p-1.s3-accesspoint.eu-west-1.amazonaws.com", "/priv/k", &["?"]);
    check("b.s3.eu-west-1.amazonaws.com", "/a--x-s3/k", &["?"]);
}

#[test]
fn swift_resources_are_found() {
    let put = |fields: &[(&str, &str)]| places("PUT h.test/v1/A/c/o", fields);
    assert_eq!(put(&[("X-Symlink-Target", "d/p")]), ["h.test:443/v1/A/d/p"]);
    let target = ("X-Symlink-Target", "d/p");
    assert_eq!(put(&[target, ("X-Symlink-Target-Account", "B")]), ["h.test:443/v1/B/d/p"]);
    assert_eq!(put(&[("X-Object-Manifest", "d/p")]), ["h.test:443/v1/A/d/p~", "h.test:443/v1/A/d/p~/~"]);
    assert_eq!(put(&[("X-Object-Manifest", "d")]), ["h.test:443/v1/A/d/~", "h.test:443/v1/A/d/~/~"]);
    assert_eq!(put(&[("X-Versions-Location", "d")]), ["h.test:443/v1/A/d"]);
    assert_eq!(put(&[("X-Container-Sync-To", "//r/c/A/d")]), ["?"]);
    let from = ("X-Copy-From", "d/p");
    let account = |value| ("X-Copy-From-Account", value);
    assert_eq!(put(&[from, account("A"), account("B")]), ["h.test:443/v1/A/d/p", "h.test:443/v1/B/d/p"]);
    assert_eq!(put(&[from, account("A"), ("x_copy_from_account", "B")]).len(), 2);
    let destination = [("Destination", "d/p"), ("Destination-Account", "A"), ("Destination-Account", "B")];
    assert_eq!(places("COPY h.test/v1/A/c/o", &destination), ["h.test:443/v1/A/d/p", "h.test:443/v1/B/d/p"]);
    assert_eq!(places("PUT h.test/v1/A/c/o?multipart-manifest=put", &[]), ["?"]);
    assert!(places("GET h.test/v1/A/c/o?multipart-manifest=get", &[]).is_empty());
    assert_eq!(places("POST h.test/v1/A/c?bulk-delete", &[]), ["?"]);
}

#[test]
fn resources_in_vendor_headers_are_found() {
    let check = |field: &str, value: &str, expected: &[&str]| {
        assert_eq!(places("PUT h.test/v1/x", &[(field, value)]), expected, "{field}: {value}");
    };
    check("x-vault-namespace", "a/b/", &["h.test:443/v1/a/b/x"]);
    check("x-vault-namespace", "", &[]);
    check("x-checksum-deploy", "true", &["?"]);
    check("pic-operations", "{}", &["?"]);
    check("x-image-save-object", "x", &["?"]);
    check("x-oss-process", "image/resize,w_1|sys/saveas,o_eA", &["?"]);
    check("x-oss-process", "image/resize,w_1", &[]);
    check("x-oss-symlink-target", "//other.test/x", &["?"]);
    check("x-oss-symlink-target", "https:x", &["?"]);
    assert_eq!(places("PUT h.test/v1/x?x-tos-save-bucket=b", &[]), ["?"]);
    assert_eq!(places("COPY h.test/a", &[("destination", "//other.test/x")]), ["?"]);
}
