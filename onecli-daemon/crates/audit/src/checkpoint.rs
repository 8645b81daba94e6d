//! Signed statements about the contents of the log: a C2SP tlog-checkpoint in a C2SP signed note.
//!
//! ```text
//! onecli/audit/0198c5a2-...               the log's origin
//! 4711                                    the number of its records
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   the root of their Merkle tree (RFC 6962)
//! time 2026-01-02T03:04:05.678901Z        the time of signing
//! prev 0f3b...                            the required `prev` of the next record
//! edge NvAfZ...                           the tree's right edge, from which hashing continues
//! end clean                               only in the last checkpoint of a stopped daemon: nothing follows
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

use super::link::Link;
use super::tree::Tree;

/// The prefix of a log's origin.
const ORIGIN: &str = "onecli/audit/";
/// The signature type of Ed25519 in signed notes.
const ED25519_TYPE: u8 = 1;

/// The prefix of a note on one line.
const MARK: &str = "audit checkpoint: ";

/// Writes a note on one line, for media that do not preserve line ends: each becomes `\n`.
pub fn to_single_line(note: &str) -> String {
    format!("{MARK}{}", note.replace('\n', "\\n"))
}

/// Extracts the note from a line that contains one. Text before it is ignored: syslog's time, host and program.
pub fn from_single_line(line: &str) -> Option<String> {
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
    /// The length of a seed, in bytes.
    pub const SEED: usize = 32;

    /// Returns the key pair of a seed; `None` if the seed does not have [`Signer::SEED`] bytes.
    pub fn from_seed(seed: &[u8]) -> Option<Signer> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(|pair| Signer { pair })
    }

    /// Returns the verifier of this signer's checkpoints of a log.
    pub fn verifier(&self, log: LogId) -> Verifier {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        Verifier { log, key }
    }

    /// Reads the checkpoint in a file, of any log. Returns `None` if this signer signed none there.
    pub(super) fn read(&self, path: &Path) -> Option<Checkpoint> {
        let note = std::fs::read_to_string(path).ok()?;
        let named: Checkpoint = note.rsplit_once("\n\n")?.0.parse().ok()?;
        self.verifier(named.log).open(&note).ok()
    }

    /// Returns the note: text and signature.
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

/// The reason why a note is not a checkpoint of the log, or a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The form is wrong.
    #[error("it is not a valid {0}")]
    Form(&'static str),
    /// The note was signed for another log.
    #[error("it belongs to another log, {0}")]
    OtherLog(LogId),
    /// The note has no valid signature of the key.
    #[error("its signature was not made with the log's key")]
    Signature,
}

impl Verifier {
    /// The log that this key belongs to.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The first four bytes of SHA-256 over name and key. They distinguish keys of the same name.
    fn key_hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(format!("{ORIGIN}{}\n", self.log))
            .chain_update([ED25519_TYPE])
            .chain_update(self.key)
            .finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Reads a note that this key must have signed. Other signatures on it, such as those of witnesses, are
    /// ignored.
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
    /// Reads a note of any log that this key must have signed: all logs of a host share one key.
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

/// The contents of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) log: LogId,
    pub(super) time: Timestamp,
    /// The tree of all records so far. Its size is the number of the last record.
    pub(super) tree: Tree,
    /// The required `prev` of the next record.
    pub(super) prev: Link,
    /// The daemon ended the log here. The next daemon revokes this before its first record, so no daemon wrote the
    /// bytes behind such a checkpoint.
    pub(super) ended: bool,
}

/// The last line of a checkpoint with [`Checkpoint::ended`]. Older checkpoints have no such line, and older
/// programs ignore it.
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
    fn checkpoint_and_verifier_key_round_trip() {
        let (signer, checkpoint) = (signer(), checkpoint());
        let verifier = signer.verifier(checkpoint.log);
        assert_eq!(verifier.to_string().parse(), Ok(verifier));
        let note = signer.sign(&checkpoint);
        assert_eq!(verifier.open(&note), Ok(checkpoint.clone()));
        let logged = format!("Jan  2 03:04:05 host onecli-daemon: {}\n", to_single_line(&note));
        assert_eq!(from_single_line(&logged).as_deref(), Some(note.as_str()));
        let cosigned = format!("{note}\u{2014} witness.example/w1 AAAAAAAA\n");
        assert_eq!(verifier.open(&cosigned), Ok(checkpoint), "a witness may add its own");
    }

    /// Frozen: notes that were signed once must stay readable.
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
    fn changed_note_is_refused() {
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
