//! Signed statements of what the log holds: C2SP tlog-checkpoint in a C2SP signed note.
//!
//! ```text
//! onecli/audit/0198c5a2-...               the log's origin
//! 4711                                    how many records it has
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   the root of their Merkle tree (RFC 6962)
//! time 2026-01-02T03:04:05.678901Z        when this was signed
//! prev 0f3b...                            what the next record's `prev` has to be
//! edge NvAfZ...                           the tree's right edge, so that hashing can go on from here
//! end clean                               only in the last one of a daemon that was stopped: nothing comes after
//!
//! — onecli/audit/0198c5a2-... Az3grl...   the signature (Ed25519)
//! ```

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use onecli_model::LogId;
use sha2::{Digest, Sha256};

use super::encode::Link;
use super::tree::Tree;

/// What a log's origin begins with.
const ORIGIN: &str = "onecli/audit/";
/// The signature type of Ed25519 in signed notes.
const ED25519_TYPE: u8 = 1;

/// What stands before a note that is one line.
const MARK: &str = "audit checkpoint: ";

/// A note for where line ends are not kept: they are written as `\n`.
pub fn on_one_line(note: &str) -> String {
    format!("{MARK}{}", note.replace('\n', "\\n"))
}

/// The note in a line that holds one, whatever stands before it: syslog's time, host and program.
pub fn from_one_line(line: &str) -> Option<String> {
    let (_, note) = line.split_once(MARK)?;
    Some(note.trim_end().replace("\\n", "\n"))
}

/// Signs a log's checkpoints (Ed25519, RFC 8032).
pub struct Signer {
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

impl Signer {
    /// How many bytes a seed has.
    pub const SEED: usize = 32;

    /// The key pair of a seed; `None` where it has not [`Signer::SEED`] bytes.
    pub fn from_seed(seed: &[u8]) -> Option<Signer> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(|pair| Signer { pair })
    }

    /// What verifies this signer's checkpoints of a log.
    pub fn verifier(&self, log: LogId) -> Verifier {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        Verifier { log, key }
    }

    /// The checkpoint in a file, of whichever log; `None` where it is none that this signer signed.
    pub(super) fn read(&self, path: &Path) -> Option<Checkpoint> {
        let note = std::fs::read_to_string(path).ok()?;
        let named: Checkpoint = note.rsplit_once("\n\n")?.0.parse().ok()?;
        self.verifier(named.log).open(&note).ok()
    }

    /// The note: text and signature.
    pub(super) fn sign(&self, checkpoint: &Checkpoint) -> String {
        let text = checkpoint.to_string();
        let verifier = self.verifier(checkpoint.log);
        let mut signature = verifier.key_hash().to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n\u{2014} {ORIGIN}{} {}\n", checkpoint.log, BASE64.encode(&signature))
    }
}

/// The public key of one log. As text it is a C2SP verifier key: `NAME+HASH+KEY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifier {
    log: LogId,
    key: [u8; 32],
}

/// Why a note is no checkpoint of the log, or a text no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not in the form.
    #[error("it is not in the form of a {0}")]
    Form(&'static str),
    /// Signed for another log.
    #[error("it is of another log, {0}")]
    OtherLog(LogId),
    /// No valid signature of the key.
    #[error("its signature is not of the log's key")]
    Signature,
}

impl Verifier {
    /// The log that it is the key of.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// SHA-256 over name and key, the first four bytes: tells keys of one name apart.
    fn key_hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(format!("{ORIGIN}{}\n", self.log))
            .chain_update([ED25519_TYPE])
            .chain_update(self.key)
            .finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Reads a note that this key has to have signed. Other signatures on it, of witnesses, are passed over.
    ///
    /// # Errors
    /// [`NoteError`].
    pub(super) fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        const FORM: NoteError = NoteError::Form("signed checkpoint");
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(FORM)?;
        let text = format!("{text}\n");
        let checkpoint: Checkpoint = text.parse()?;
        if checkpoint.log != self.log {
            return Err(NoteError::OtherLog(checkpoint.log));
        }
        let name = format!("\u{2014} {ORIGIN}{} ", self.log);
        let key = UnparsedPublicKey::new(&ED25519, self.key);
        let signed = signatures.lines().filter_map(|line| line.strip_prefix(&name)).any(|signature| {
            BASE64.decode(signature.as_bytes()).is_ok_and(|signature| {
                signature
                    .strip_prefix(&self.key_hash())
                    .is_some_and(|signature| key.verify(text.as_bytes(), signature).is_ok())
            })
        });
        if signed { Ok(checkpoint) } else { Err(NoteError::Signature) }
    }
}

impl Verifier {
    /// Reads a note of whichever log that this key has to have signed: a host's logs have one key.
    ///
    /// # Errors
    /// [`NoteError`].
    pub(super) fn open_any(&self, note: &str) -> Result<Checkpoint, NoteError> {
        match self.open(note) {
            Err(NoteError::OtherLog(log)) => Verifier { log, key: self.key }.open(note),
            opened => opened,
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.key);
        write!(f, "{ORIGIN}{}+{}+{}", self.log, HEXLOWER.encode(&self.key_hash()), BASE64.encode(&key))
    }
}

impl FromStr for Verifier {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Verifier, NoteError> {
        const FORM: NoteError = NoteError::Form("verifier key (NAME+HASH+KEY)");
        let mut parts = text.trim().splitn(3, '+');
        let (name, hash, key) =
            (parts.next().ok_or(FORM)?, parts.next().ok_or(FORM)?, parts.next().ok_or(FORM)?);
        let log = name.strip_prefix(ORIGIN).and_then(|id| id.parse().ok()).ok_or(FORM)?;
        let key = BASE64.decode(key.as_bytes()).map_err(|_| FORM)?;
        let key = key.strip_prefix(&[ED25519_TYPE]).ok_or(FORM)?.try_into().map_err(|_| FORM)?;
        let verifier = Verifier { log, key };
        if HEXLOWER.encode(&verifier.key_hash()) == hash { Ok(verifier) } else { Err(FORM) }
    }
}

/// What a log holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) log: LogId,
    pub(super) time: Timestamp,
    /// All records so far; the last one's number is the tree's size.
    pub(super) tree: Tree,
    /// What the next record's `prev` has to be.
    pub(super) prev: Link,
    /// The daemon ended the log here. The next one takes this back before its first record, so what stands behind such a
    /// checkpoint no daemon wrote.
    pub(super) ended: bool,
}

/// The last line of a checkpoint with [`Checkpoint::ended`]. Older ones have none, and older programs pass it over.
const ENDED: &str = "end clean";

/// The signed text.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{ORIGIN}{}", self.log)?;
        writeln!(f, "{}", self.tree.size())?;
        writeln!(f, "{}", BASE64.encode(&self.tree.root()))?;
        writeln!(f, "time {:.6}", self.time)?;
        writeln!(f, "prev {}", self.prev)?;
        writeln!(f, "edge {}", BASE64.encode(&self.tree.edge().concat()))?;
        if self.ended { writeln!(f, "{ENDED}") } else { Ok(()) }
    }
}

impl FromStr for Checkpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Checkpoint, NoteError> {
        const FORM: NoteError = NoteError::Form("checkpoint");
        let mut lines = text.lines();
        let mut next = || lines.next().ok_or(FORM);
        let log = next()?.strip_prefix(ORIGIN).and_then(|id| id.parse().ok()).ok_or(FORM)?;
        let size: u64 = next()?.parse().map_err(|_| FORM)?;
        let root = next()?;
        let time = next()?.strip_prefix("time ").and_then(|time| time.parse().ok()).ok_or(FORM)?;
        let prev = next()?.strip_prefix("prev ").and_then(|prev| prev.parse().ok()).ok_or(FORM)?;
        let edge = next()?.strip_prefix("edge ").ok_or(FORM)?;
        let edge = BASE64.decode(edge.as_bytes()).map_err(|_| FORM)?;
        let (edge, rest) = edge.as_chunks::<32>();
        let tree = Tree::from_edge(size, edge.to_vec()).filter(|_| rest.is_empty()).ok_or(FORM)?;
        if BASE64.encode(&tree.root()) != root {
            return Err(FORM);
        }
        Ok(Checkpoint { log, time, tree, prev, ended: lines.any(|line| line == ENDED) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::leaf_hash;
    use super::*;

    fn signer() -> Signer {
        Signer::from_seed(&[7; 32]).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        let mut tree = Tree::default();
        for leaf in ["a", "b", "c"] {
            tree.push(leaf_hash(leaf.as_bytes()));
        }
        Checkpoint {
            log: "0198c5a2-0000-7000-8000-000000000001".parse().unwrap(),
            time: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
            tree,
            prev: Link::of(&leaf_hash(b"c")),
            ended: false,
        }
    }

    #[test]
    fn a_checkpoint_reads_back_and_its_key_too() {
        let (signer, checkpoint) = (signer(), checkpoint());
        let verifier = signer.verifier(checkpoint.log);
        assert_eq!(verifier.to_string().parse(), Ok(verifier));
        let note = signer.sign(&checkpoint);
        assert_eq!(verifier.open(&note), Ok(checkpoint.clone()));
        let logged = format!("Jan  2 03:04:05 host onecli-daemon: {}\n", on_one_line(&note));
        assert_eq!(from_one_line(&logged).as_deref(), Some(note.as_str()));
        let cosigned = format!("{note}\u{2014} witness.example/w1 AAAAAAAA\n");
        assert_eq!(verifier.open(&cosigned), Ok(checkpoint), "a witness may add its own");
    }

    /// Frozen: what was signed once must stay readable.
    #[test]
    fn the_note_is_as_documented() {
        let lines: Vec<String> = signer().sign(&checkpoint()).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "onecli/audit/0198c5a2-0000-7000-8000-000000000001");
        assert_eq!(lines[1], "3");
        assert_eq!(lines[2], BASE64.encode(&checkpoint().tree.root()));
        assert_eq!(lines[3], "time 2026-01-02T03:04:05.678901Z");
        assert_eq!(lines[4], format!("prev {}", checkpoint().prev));
        assert!(lines[5].starts_with("edge ") && lines[6].is_empty(), "{lines:?}");
        assert!(lines[7].starts_with("\u{2014} onecli/audit/0198c5a2-0000-7000-8000-000000000001 "));
        assert_eq!(lines.len(), 8);
        let ended = signer().sign(&Checkpoint { ended: true, ..checkpoint() });
        assert_eq!(ended.lines().nth(6), Some("end clean"));
        assert_eq!(ended.lines().count(), 9);
        assert!(signer().verifier(checkpoint().log).open(&ended).unwrap().ended);
    }

    #[test]
    fn what_was_changed_is_refused() {
        let (signer, checkpoint) = (signer(), checkpoint());
        let verifier = signer.verifier(checkpoint.log);
        let note = signer.sign(&checkpoint);
        assert_eq!(verifier.open(&note.replace("2026", "2027")), Err(NoteError::Signature));
        assert!(matches!(verifier.open(&note.replacen("\n3\n", "\n4\n", 1)), Err(NoteError::Form(_))));
        let other = Signer::from_seed(&[8; 32]).unwrap();
        assert_eq!(verifier.open(&other.sign(&checkpoint)), Err(NoteError::Signature));
        let elsewhere = LogId(uuid::Uuid::nil());
        assert_eq!(
            signer.verifier(elsewhere).open(&note),
            Err(NoteError::OtherLog(checkpoint.log)),
            "a key is for one log"
        );
        for broken in ["", "x", "\n\n", "a\n\nb"] {
            assert!(matches!(verifier.open(broken), Err(NoteError::Form(_))), "{broken:?}");
        }
        assert!("onecli/audit/x+00+AA".parse::<Verifier>().is_err());
        assert!(verifier.to_string().replace('+', "+0").parse::<Verifier>().is_err());
    }
}
