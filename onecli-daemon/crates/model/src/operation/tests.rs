//! Operations that a request may call, by query, header and body.

use http::header;
use http::{HeaderName, HeaderValue};

use super::*;

mod denied;

fn operations(query: &str, target: Option<&str>) -> Operations {
    let mut headers = HeaderMap::new();
    if let Some(target) = target {
        headers.insert(AWS_TARGET, HeaderValue::from_str(target).unwrap());
    }
    Operations::of(Some(query), &headers)
}

fn create_key() -> Condition {
    Condition::Operation { name: "createkeypair".to_owned(), in_form: true }
}

#[test]
fn operations_are_found_in_every_spelling() {
    let check = |query: &str, target: Option<&str>, expected: bool| {
        let got = create_key().holds(&operations(query, target), || false);
        assert_eq!(got, expected, "{query} {target:?}");
    };
    for query in [
        "Action=CreateKeyPair",
        "Version=2016-11-15&Action=CreateKeyPair&KeyName=a",
        "action=createkeypair",
        "%41ction=Create%4bey%50air",
        "%2541ction=CreateKeyPair",
        "Action=DescribeInstances&Action=CreateKeyPair",
        "a=1;Action=CreateKeyPair",
        "Action=CreateKeyPair+",
        "X-Amz-Target=x.CreateKeyPair",
    ] {
        check(query, None, true);
    }
    for query in ["Action=DescribeKeyPairs", "KeyName=CreateKeyPair", "Action=CreateKeyPairs", "Action", ""] {
        check(query, None, false);
    }
    check("", Some("AmazonEC2.CreateKeyPair"), true);
    check("", Some("amazonec2.createkeypair"), true);
    check("", Some("CreateKeyPair"), true);
    check("", Some("AmazonEC2.DescribeKeyPairs"), false);
    check("", Some("CreateKeyPair.Describe"), false);
}

#[test]
fn operations_are_found_in_forms() {
    let check = |kind: &str, body: &str, expected: Result<bool, UnreadableBody>| {
        let headers: HeaderMap =
            [(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())].into_iter().collect();
        let mut operations = Operations::of(None, &headers);
        let got = operations.read_body(&headers, body.as_bytes());
        assert_eq!(got.map(|()| create_key().holds(&operations, || false)), expected, "{kind} {body}");
    };
    let form = "application/x-www-form-urlencoded";
    check(form, "Version=1&Action=CreateKeyPair", Ok(true));
    check("application/x-www-form-urlencoded; charset=utf-8", "%41ction=CreateKeyPair", Ok(true));
    check("text/plain", "Action=CreateKeyPair", Ok(true));
    check(form, "\u{feff}Action=CreateKeyPair", Ok(true));
    check(form, "%EF%BB%BFAction=CreateKeyPair", Ok(true));
    for kind in ["multipart/form-data; boundary=x", "application/cbor", "text/plain, multipart/form-data"] {
        check(kind, "--x\r\n\r\nCreateKeyPair", Err(UnreadableBody));
    }
    check(form, "Action=DescribeKeyPairs&Filter=Action%3DCreateKeyPair", Ok(false));
    check("application/x-www-form-urlencoded; charset=utf-16", "Action=CreateKeyPair", Err(UnreadableBody));
    let many = "Action=x&".repeat(MAX_MENTIONS + 1);
    check(form, &many, Ok(true));
    let long = format!("Action={}", "x".repeat(MAX_VALUE + 1));
    check(form, &long, Ok(true));
}

#[test]
fn parameters_are_found_in_bodies() {
    let check = |condition: &str, body: &[u8], expected: bool| {
        let mut operations = Operations::default();
        operations.read_body(&HeaderMap::new(), body).unwrap();
        let condition: Condition = condition.parse().unwrap();
        let text = String::from_utf8_lossy(body);
        assert_eq!(condition.holds(&operations, || false), expected, "{condition:?} {text}");
    };
    let password = "&masteruserpassword";
    check(password, b"Action=ModifyDBInstance&MasterUserPassword=x", true);
    check(password, b"\xef\xbb\xbfMasterUserPassword=x", true);
    check(password, b"Master%55serPassword=", true);
    check(password, b"Action=x&ManageMasterUserPassword=true", false);
    check(password, b"Description=MasterUserPassword", false);
    check("?masteruserpassword", b"MasterUserPassword=x", false);
    check(password, br#"{"a":[{"MasterUserPassword":"x"}]}"#, true);
    check(password, br#"{"a":1,"MasterUser\u0050assword":"x"}"#, true);
    check(password, br#"{"ManageMasterUserPassword":true}"#, false);
    check("&action=*accesskey*", b"Action=CreateAccessKey&UserName=a", true);
    check("&action=*accesskey*", b"Action=ListBuckets", false);
    let wide = "\u{feff}MasterUserPassword=x".encode_utf16();
    check(password, &wide.clone().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), true);
    check(password, &wide.flat_map(u16::to_be_bytes).collect::<Vec<u8>>(), true);
}

#[test]
fn encoded_bodies_are_refused() {
    for (name, value) in [
        (header::CONTENT_ENCODING, "gzip"),
        (HeaderName::from_static("x-amz-content-sha256"), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
    ] {
        let headers: HeaderMap = [(name.clone(), HeaderValue::from_static(value))].into_iter().collect();
        let got = Operations::default().read_body(&headers, b"Action=CreateKeyPair");
        assert_eq!(got, Err(UnreadableBody), "{name}");
    }
}

#[test]
fn words_are_found_in_bodies() {
    let word = KNOWN.words.iter().next().unwrap();
    let condition = Condition::Word((*word).to_owned());
    let spelled = word.replace('o', "\\u006f").replace('e', "\\u0065");
    let check = |body: String, expected: bool| {
        let mut operations = Operations::default();
        operations.read_body(&HeaderMap::new(), body.as_bytes()).unwrap();
        assert_eq!(condition.holds(&operations, || false), expected, "{body}");
    };
    check(format!("{{\"query\":\"mutation {{ {word}(input: {{}}) {{ id }} }}\"}}"), true);
    check(format!("{{\"query\":\"{spelled}\"}}"), true);
    check(format!("{{\"query\":\"{}\"}}", word.to_ascii_uppercase()), true);
    check("{\"query\":\"query { viewer { login } }\"}".to_owned(), false);
}

#[test]
fn conditions_are_parsed() {
    let parameter_in = |name: &str, value: Option<&str>, in_body| Condition::Parameter {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        in_body,
    };
    let parameter = |name: &str, value: Option<&str>| parameter_in(name, value, false);
    assert_eq!("&session".parse(), Ok(parameter_in("session", None, true)));
    assert_eq!("&mode=import".parse(), Ok(parameter_in("mode", Some("import"), true)));
    assert_eq!("?session".parse(), Ok(parameter("session", None)));
    assert_eq!("?mode=import".parse(), Ok(parameter("mode", Some("import"))));
    assert_eq!("~apikeycreate".parse(), Ok(Condition::Word("apikeycreate".to_owned())));
    assert!(matches!("x-amz-target:*.x".parse(), Ok(Condition::Header { .. })));
    for bad in ["?Session", "word", "?a%20", "not a field:x"] {
        assert!(bad.parse::<Condition>().is_err(), "{bad}");
    }
}
