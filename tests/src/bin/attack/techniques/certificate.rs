//! Upstream certificates that do not prove the host. An attacker between daemon and upstream would get the credential.
//!
//! Control: the same kind of certificate without the defect is accepted, and the credential is injected.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{Script, VALUE, World, reply, server_config};

const GETS: &str = "nothing itself; an attacker on the network gets the credential";
const CONTROL: &str = "the same certificate without the defect is accepted";

pub(crate) const ROWS: &[Row] = &[
    Row::new("certificate/revoked-staple", GETS, CONTROL, |trial| {
        try_one(trial, &["good.test"], "revoked.test");
    }),
    Row::new("certificate/must-staple", GETS, CONTROL, |trial| {
        try_one(trial, &["good.test", "stapled.test"], "unstapled.test");
    }),
    Row::new("certificate/weak-intermediate", GETS, CONTROL, |trial| {
        try_one(trial, &["intermediate.test"], "weak-intermediate.test");
    }),
    Row::new("certificate/wrong-name", GETS, CONTROL, |trial| {
        try_one(trial, &["good.test"], "other-name.test");
    }),
    Row::new("certificate/expired", GETS, CONTROL, |trial| {
        try_one(trial, &["good.test"], "expired.test");
    }),
    Row::new("certificate/self-signed", GETS, CONTROL, |trial| {
        try_one(trial, &["good.test"], "self-signed.test");
    }),
    Row::new("certificate/leaf-as-ca", GETS, CONTROL, |trial| {
        try_one(trial, &["good.test"], "leaf-as-ca.test");
    }),
];

/// id-pe-tlsfeature (RFC 7633), and its value for `status_request`.
const TLS_FEATURE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
const STATUS_REQUEST: &[u8] = &[0x30, 0x03, 0x02, 0x01, 0x05];

fn try_one(trial: &mut Trial, good: &[&str], bad: &str) {
    let dir = tempfile::tempdir().expect("temp dir");
    let shop = Shop::new(dir.path());
    let names = [good, &[bad]].concat();
    let chains = names.iter().map(|name| ((*name).to_owned(), shop.chain(name))).collect();
    let config = server_config().with_cert_resolver(Arc::new(ByName(chains)));
    let script = Script::with(config, &shop.pem, Arc::new(|_, conn| reply(conn, "ok")));
    let world = World::of(script, &names);
    for name in &names {
        let _ = world.give(name, name, VALUE, &["--bearer"]);
    }
    let injected = |name: &str| {
        world.script.clear();
        let answer = world.get(name, "/", "Connection: close\r\n");
        (world.script.saw(VALUE), answer)
    };
    for name in good {
        let (sent, answer) = injected(name);
        trial.control(format!("{name}: {answer:?}"), sent);
    }
    let (sent, answer) = injected(bad);
    trial.note(format!("{bad}: {} {}", answer.status, answer.code().unwrap_or_default()));
    trial.attempt(format!("{bad} got the credential"), sent);
}

/// Selects a certificate by the requested server name, regardless of the names in the certificate.
#[derive(Debug)]
struct ByName(HashMap<String, Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(hello.server_name()?).cloned()
    }
}

/// Issues the certificates.
struct Shop<'a> {
    dir: &'a Path,
    pem: String,
    root: Issuer<'static, KeyPair>,
}

fn ca(name: &str, usages: &[KeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages.to_vec();
    params
}

fn leaf(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

impl<'a> Shop<'a> {
    fn new(dir: &'a Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let usages =
            [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let params = ca("attack root CA", &usages);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(dir.join("ca.pem"), &pem).expect("write");
        std::fs::write(dir.join("ca.key"), key.serialize_pem()).expect("write");
        Self { dir, pem, root: Issuer::new(params, key) }
    }

    fn chain(&self, name: &str) -> Arc<CertifiedKey> {
        match name {
            "good.test" => self.stapled(&leaf(name, 0x1001), 0x1001, false),
            "revoked.test" => self.stapled(&leaf(name, 0x1002), 0x1002, true),
            "stapled.test" => self.stapled(&must_staple(leaf(name, 0x1003)), 0x1003, false),
            "unstapled.test" => self.signed(&must_staple(leaf(name, 0x1004))),
            "intermediate.test" => self.through(name, &ca("intermediate", &[KeyUsagePurpose::KeyCertSign])),
            "weak-intermediate.test" => {
                self.through(name, &ca("weak intermediate", &[KeyUsagePurpose::DigitalSignature]))
            }
            "other-name.test" => self.signed(&leaf("another.test", 0x1005)),
            "expired.test" => {
                let mut params = leaf(name, 0x1006);
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
                self.signed(&params)
            }
            "self-signed.test" => {
                let key = KeyPair::generate().expect("a key");
                let certificate = leaf(name, 0x1007).self_signed(&key).expect("a certificate");
                certified(vec![certificate.der().clone()], &key)
            }
            "leaf-as-ca.test" => self.through(name, &leaf("a-leaf.test", 0x1008)),
            _ => panic!("no certificate for {name}"),
        }
    }

    /// A certificate signed by the root.
    fn signed(&self, params: &CertificateParams) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.root).expect("a certificate");
        certified(vec![certificate.der().clone()], &key)
    }

    /// A certificate signed by the intermediate `between`, which the root signed.
    fn through(&self, name: &str, between: &CertificateParams) -> Arc<CertifiedKey> {
        let between_key = KeyPair::generate().expect("a key");
        let above = between.signed_by(&between_key, &self.root).expect("a certificate").der().clone();
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(between, between_key);
        let certificate = leaf(name, 0x2001).signed_by(&key, &issuer).expect("a certificate");
        certified(vec![certificate.der().clone(), above], &key)
    }

    /// A certificate signed by the root, with a stapled OCSP response.
    fn stapled(&self, params: &CertificateParams, serial: u64, revoked: bool) -> Arc<CertifiedKey> {
        let mut certified = Arc::unwrap_or_clone(self.signed(params));
        certified.ocsp = Some(self.ocsp(serial, revoked));
        Arc::new(certified)
    }

    /// An OCSP response from openssl-ocsp(1), which acts as its own responder here.
    fn ocsp(&self, serial: u64, revoked: bool) -> Vec<u8> {
        let state = if revoked { "R\t400101000000Z\t250101000000Z" } else { "V\t400101000000Z\t" };
        let index = format!("{state}\t{serial:X}\tunknown\t/CN=x\n");
        std::fs::write(self.dir.join("index.txt"), index).expect("write");
        let output = Command::new("openssl")
            .current_dir(self.dir)
            .args(["ocsp", "-index", "index.txt", "-rsigner", "ca.pem", "-rkey", "ca.key", "-CA", "ca.pem"])
            .args(["-issuer", "ca.pem", "-serial", &format!("{serial:#X}"), "-respout", "response.der"])
            .args(["-ndays", "2", "-no_nonce", "-noverify"])
            .output()
            .expect("openssl runs: install Debian's package openssl");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl ocsp: {message}");
        std::fs::read(self.dir.join("response.der")).expect("openssl's response")
    }
}

fn must_staple(mut params: CertificateParams) -> CertificateParams {
    let extension = CustomExtension::from_oid_content(TLS_FEATURE, STATUS_REQUEST.to_vec());
    params.custom_extensions.push(extension);
    params
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key that signs");
    Arc::new(CertifiedKey::new(chain, signing))
}
