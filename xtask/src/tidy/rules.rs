//! The rules as data: DESIGN section 13, repeated in ARCHITECTURE.md.

/// What a top-level module of onecli-daemon may name.
pub(super) enum Names {
    /// These modules, and itself.
    Only(&'static [&'static str]),
    /// All of them: it wires the others.
    All,
}

/// Direction of dependencies between the top-level modules of onecli-daemon.
pub(super) const EDGES: &[(&str, Names)] = &[
    ("model", Names::Only(&[])),
    ("config", Names::Only(&["model", "kernel"])),
    ("policy", Names::Only(&["model"])),
    ("audit", Names::Only(&["model"])),
    ("net", Names::Only(&["model"])),
    ("tls", Names::Only(&["model"])),
    ("kernel", Names::Only(&["model"])),
    ("store", Names::Only(&["model"])),
    ("privilege", Names::Only(&["model"])),
    ("dns", Names::Only(&["model", "policy", "audit", "net"])),
    ("launch", Names::Only(&["model", "privilege"])),
    // `policy` for its `Grant`: `vault.open(grant)` takes the proof.
    ("vault", Names::Only(&["model", "policy", "store", "tls"])),
    ("http", Names::Only(&["model", "policy", "vault", "audit", "net", "tls"])),
    ("admin", Names::Only(&["model", "config", "policy", "vault", "store", "audit"])),
    ("cli", Names::Only(&["model", "admin", "launch", "audit", "config", "kernel", "tls"])),
    ("app", Names::All),
    // Compiled for the fuzz targets alone.
    ("fuzz", Names::All),
];

/// Crates that one part of onecli-daemon owns: crate, module paths that may name it.
///
/// `bin` stands for the mains.
pub(super) const OWNERS: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("aya", &["kernel"]),
    ("aya_log", &["kernel"]),
    ("rustls", &["tls"]),
    ("webpki", &["tls"]),
    ("x509_ocsp", &["tls"]),
    ("x509_cert", &["tls"]),
    ("tokio_rustls", &["tls"]),
    ("rcgen", &["tls"]),
    ("aes_gcm", &["vault::envelope"]),
    ("clap", &["cli", "bin"]),
    ("hickory_proto", &["dns"]),
    ("hickory_resolver", &["net"]),
];

/// Where `unsafe` may stand: path prefixes. `unsafe impl Pod` may stand anywhere.
pub(super) const UNSAFE: &[&str] =
    &["onecli-daemon/src/kernel", "onecli-daemon/src/privilege", "onecli-daemon/src/launch", "onecli-ebpf/"];

/// Longest file of code.
pub(super) const LONGEST: usize = 500;

/// The commands README has to name.
pub(super) const README_NAMES: &[&str] = &["cargo xtask demo", "cargo xtask test"];
