//! The location of a bucket's name in requests to object stores: in the host or in the path.

use crate::Host;

/// Domains of services whose hosts have one of [`MARKS`] after the bucket.
const MARKED: [&str; 15] = [
    "126.net",
    "aliyuncs.com",
    "amazonaws.com",
    "amazonaws.com.cn",
    "api.aws",
    "appdomain.cloud",
    "backblazeb2.com",
    "bcebos.com",
    "cloud.ovh.net",
    "jdcloud-oss.com",
    "ksyuncs.com",
    "myhuaweicloud.com",
    "myqcloud.com",
    "scw.cloud",
    "wasabisys.com",
];

/// The beginnings of the endpoint in those domains.
const MARKS: [&str; 9] =
    [".s3.", ".s3-", ".s3express-", ".oss-", ".cos.", ".obs.", ".tos-", ".ks3-", ".nos-"];

/// Domains of services with another form of endpoint, each with the number of labels that the endpoint has before the
/// domain. The labels before the endpoint are the bucket. From the documentation of each service, 2026-11-30.
const ENDPOINTS: [(&str, usize); 16] = [
    ("126.net", 1),
    ("bcebos.com", 1),
    ("cdn.digitaloceanspaces.com", 1),
    ("digitaloceanspaces.com", 1),
    ("dream.io", 1),
    ("eu.r2.cloudflarestorage.com", 1),
    ("exo.io", 1),
    ("fedramp.r2.cloudflarestorage.com", 1),
    ("linodeobjects.com", 1),
    ("qingstor.com", 1),
    ("r2.cloudflarestorage.com", 1),
    ("storage.googleapis.com", 0),
    ("storage.yandexcloud.net", 0),
    ("volces.com", 1),
    ("vultrobjects.com", 1),
    ("your-objectstorage.com", 1),
];

/// First labels that are not buckets: the usual host names of server software.
const SERVERS: [&str; 6] = ["s3", "minio", "ceph", "rgw", "garage", "seaweedfs"];

/// AWS hosts whose first labels are not a bucket, and whose sources may be buckets.
const ACCESS_POINTS: [&str; 5] =
    [".s3-accesspoint", ".s3-object-lambda", ".s3-outposts", ".s3-control", ".accesspoint.s3-"];

/// The location of a host's bucket name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosting<'h> {
    /// The first segment of the path.
    Path,
    /// The host.
    Host(Split<'h>),
    /// The convention is unknown: every reading counts.
    Either(Split<'h>),
    /// Neither.
    AccessPoint,
}

/// A host name that begins with a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split<'h> {
    /// The bucket.
    pub(super) bucket: &'h str,
    /// The rest, with the dot before it.
    pub(super) endpoint: &'h str,
}

/// Returns the location of the bucket name in requests to `host`.
pub(super) fn hosting(host: &Host) -> Hosting<'_> {
    let Some(name) = host.as_name() else { return Hosting::Path };
    if ACCESS_POINTS.iter().any(|mark| name.contains(mark)) {
        return Hosting::AccessPoint;
    }
    known(name).unwrap_or_else(|| unknown(name))
}

/// Determines the location by the domain of a known service.
fn known(name: &str) -> Option<Hosting<'_>> {
    if MARKED.iter().any(|domain| is_below(name, domain))
        && let Some(found) = marked(name)
    {
        return Some(found);
    }
    let endpoints = ENDPOINTS.iter().filter(|(domain, _)| is_below(name, domain) || name == *domain);
    let (domain, labels) = endpoints.max_by_key(|(domain, _)| domain.len())?;
    // Dots are counted from the end; the first is the one before the domain.
    let before = &name[..name.len() - domain.len()];
    let end = before.rmatch_indices('.').nth(*labels);
    Some(end.map_or(Hosting::Path, |(at, _)| Hosting::Host(split(name, at))))
}

/// Determines the location by a mark, which begins the endpoint.
fn marked(name: &str) -> Option<Hosting<'_>> {
    if MARKS.iter().any(|mark| name.starts_with(&mark[1..])) {
        return Some(Hosting::Path);
    }
    let at = MARKS.iter().filter_map(|mark| name.find(mark)).min()?;
    Some(Hosting::Host(split(name, at)))
}

/// A bucket is a label before a service's name, which has at least two labels.
fn unknown(name: &str) -> Hosting<'_> {
    let Some((first, rest)) = name.split_once('.') else { return Hosting::Path };
    if !rest.contains('.') || SERVERS.contains(&first) {
        return Hosting::Path;
    }
    let at = name.find(".s3.").unwrap_or(first.len());
    Hosting::Either(split(name, at))
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|before| before.ends_with('.'))
}

fn split(name: &str, at: usize) -> Split<'_> {
    Split { bucket: &name[..at], endpoint: &name[at..] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_location_is_known_for_services() {
        let check = |host: &str, expected: &str| {
            let host = host.parse().unwrap();
            let got = match hosting(&host) {
                Hosting::Path => "path".to_owned(),
                Hosting::Host(Split { bucket, endpoint }) => format!("{bucket}|{endpoint}"),
                Hosting::Either(Split { bucket, endpoint }) => format!("{bucket}?{endpoint}"),
                Hosting::AccessPoint => "access point".to_owned(),
            };
            assert_eq!(got, expected, "{host}");
        };
        check("s3.eu-west-1.amazonaws.com", "path");
        check("s3-eu-west-1.amazonaws.com", "path");
        check("b.s3.eu-west-1.amazonaws.com", "b|.s3.eu-west-1.amazonaws.com");
        check("b.c.s3-fips.us-east-1.amazonaws.com", "b.c|.s3-fips.us-east-1.amazonaws.com");
        check("priv-1.s3-accesspoint.eu-west-1.amazonaws.com", "access point");
        check("x.mrap.accesspoint.s3-global.amazonaws.com", "access point");
        check("a--x-s3.s3express-a.us-east-1.amazonaws.com", "a--x-s3|.s3express-a.us-east-1.amazonaws.com");
        check("b.nyc3.digitaloceanspaces.com", "b|.nyc3.digitaloceanspaces.com");
        check("b.c.nyc3.digitaloceanspaces.com", "b.c|.nyc3.digitaloceanspaces.com");
        check("nyc3.digitaloceanspaces.com", "path");
        check("b.nyc3.cdn.digitaloceanspaces.com", "b|.nyc3.cdn.digitaloceanspaces.com");
        check("acct.r2.cloudflarestorage.com", "path");
        check("b.acct.r2.cloudflarestorage.com", "b|.acct.r2.cloudflarestorage.com");
        check("acct.eu.r2.cloudflarestorage.com", "path");
        check("b.acct.eu.r2.cloudflarestorage.com", "b|.acct.eu.r2.cloudflarestorage.com");
        check("b.us-east-1.linodeobjects.com", "b|.us-east-1.linodeobjects.com");
        check("b.s3.us-west-004.backblazeb2.com", "b|.s3.us-west-004.backblazeb2.com");
        check("b.oss-x.aliyuncs.com", "b|.oss-x.aliyuncs.com");
        check("b.bj.bcebos.com", "b|.bj.bcebos.com");
        check("s3.bj.bcebos.com", "path");
        check("b.storage.googleapis.com", "b|.storage.googleapis.com");
        check("storage.googleapis.com", "path");
        check("127.0.0.1", "path");
        check("store", "path");
        check("store.test", "path");
        check("minio.acme.test", "path");
        check("s3.acme.test", "path");
        check("b.s3.acme.test", "b?.s3.acme.test");
        check("b.store.acme.test", "b?.store.acme.test");
        check("evil-nyc3.digitaloceanspaces.com.acme.test", "evil-nyc3?.digitaloceanspaces.com.acme.test");
    }
}
