//! Fields and parameters that name a resource, and the format of their values.

use std::borrow::Cow;

use http::Method;

/// The format in which a value names its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A URL, or `/bucket/key`, where the bucket may be the first label of the host. For COS: `host/key`.
    Bucket,
    /// A URL, or a path below the same host (in a bucket's host: the same bucket).
    Path,
    /// A URL or absolute path (RFC 4918 section 10.3), or `container/object` (Swift) below the account in the URL.
    Destination,
    /// `container/object` below the account in the URL, or below the account in this field (Swift).
    Container(&'static str),
    /// `container/prefix` below the account in the URL: all objects whose names begin with the prefix (Swift).
    Prefix,
    /// A prefix of the request's own path, after its first segment (`HashiCorp` Vault).
    Namespace,
    /// URLs in angle brackets outside of parentheses: the tagged lists of `If` (RFC 4918 section 10.4).
    Tagged,
    /// A format that is not read here: in the body, by a digest, or in a language of the service.
    Unreadable,
}

/// Texts in the value of a processing instruction that names an object: the target (`saveas`), or an image to draw
/// (`image_` and its name in base64). Alibaba OSS, Huawei OBS, Volcengine TOS, Tencent CI.
const NAMING_INSTRUCTIONS: [&str; 2] = ["saveas", "image_"];

/// Returns a field's name as read by servers that treat any other character as `-` (CGI, WSGI), in lower case.
pub fn folded_name(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Cow::Borrowed(name);
    }
    let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    Cow::Owned(name.chars().map(fold).collect())
}

/// Returns the format of a header field with this [`folded_name`]; `None` for a field that names nothing.
pub(super) fn of_field(name: &str, value: &[u8], method: &Method) -> Option<Form> {
    Some(match name {
        // With other methods, `Destination` is a field of the application.
        "destination" if matches!(method.as_str(), "COPY" | "MOVE") => Form::Destination,
        "if" => Form::Tagged,
        // Swift: "Copy object", "Create or replace object", symlinks, large objects and versions of the Object
        // Storage API reference.
        "x-copy-from" => Form::Container("x-copy-from-account"),
        "x-symlink-target" => Form::Container("x-symlink-target-account"),
        "x-object-manifest" => Form::Prefix,
        "x-versions-location" | "x-history-location" => Form::Container(""),
        // Swift: container synchronization copies all objects to another cluster. Artifactory: stores the file with
        // this digest, wherever it is. Tencent COS: stores processed images under the names in this JSON text.
        "x-container-sync-to" | "x-checksum-deploy" | "pic-operations" => Form::Unreadable,
        // Alibaba OSS, PutSymlink: a later GET of the link returns this object. Azure Page Blob, Get Page Ranges.
        "x-oss-symlink-target" | "x-ms-previous-snapshot-url" => Form::Path,
        // Vault Enterprise, HCP Vault, OpenBao: "Namespaces", API overview.
        "x-vault-namespace" if !value.trim_ascii().is_empty() => Form::Namespace,
        _ => return of_ending(name, value),
    })
}

/// Determines the format by the ending of a name: AWS S3, Azure, Google, and the services that copied the format
/// (Alibaba OSS, Baidu BCE, Huawei OBS, JD, Kingsoft KS3, `NetEase` NOS, `QingStor`, Tencent COS, `UCloud`, Upyun,
/// Volcengine TOS).
fn of_ending(name: &str, value: &[u8]) -> Option<Form> {
    let own = name.strip_prefix("x-")?;
    let (rest, last) = own.rsplit_once('-')?;
    match last {
        "source" if ["-copy", "-move", "-rename"].iter().any(|verb| rest.ends_with(verb)) => {
            // Azure names the path below the host of the account.
            Some(if own.starts_with("ms-") { Form::Path } else { Form::Bucket })
        }
        "object" | "bucket" if rest.ends_with("-save") => Some(Form::Unreadable),
        "process" => {
            let has = |word: &&str| memchr::memmem::find(value, word.as_bytes()).is_some();
            NAMING_INSTRUCTIONS.iter().any(has).then_some(Form::Unreadable)
        }
        _ => None,
    }
}

/// Returns the format of a query parameter with this [`folded_name`].
pub(super) fn of_parameter(name: &str, value: &str, method: &Method) -> Option<Form> {
    match name {
        // Swift: a manifest of a large object and a list of objects to delete are in the body.
        "multipart-manifest" if value.eq_ignore_ascii_case("put") => Some(Form::Unreadable),
        "bulk-delete" => Some(Form::Unreadable),
        // SDKs move headers of a presigned request into its query.
        _ => of_field(name, value.as_bytes(), method)
            .filter(|form| !matches!(form, Form::Tagged | Form::Destination)),
    }
}
