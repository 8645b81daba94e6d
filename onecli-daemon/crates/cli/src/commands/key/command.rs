//! `onecli key ...`

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use onecli_api::{KeyRotate, KeyRotated, KeyView, RekeyView, SlotAdd, SlotAdded, SlotView, WireKey, routes};
use zeroize::Zeroizing;

use super::args::{KeyCommand, PassphraseArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::input::value;
use crate::input::value::ValueError;
use crate::output::{Output, Progress, Unit, or_dash};

/// The interval between progress queries.
const POLL: Duration = Duration::from_millis(250);

pub(crate) fn key(client: &Client, command: KeyCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        KeyCommand::Status => status(client, output),
        KeyCommand::AddKeyFile => add(client, &SlotAdd::KeyFile {}, output),
        KeyCommand::AddKey { file } => {
            let key = WireKey(read_key(&file)?);
            add(client, &SlotAdd::Key { key }, output)
        }
        KeyCommand::AddPassphrase { passphrase } => {
            let passphrase = value::read_passphrase(passphrase.passphrase_file.as_deref(), true)?;
            add(client, &SlotAdd::Passphrase { passphrase }, output)
        }
        KeyCommand::AddRecovery => add(client, &SlotAdd::Recovery {}, output),
        KeyCommand::RemoveSlot { number } => {
            let slot: SlotView = client.delete(&routes::key_slot(number))?;
            if output.is_json() {
                output.document(&slot)?;
            } else {
                output.line(&format!(
                    "removed key slot {number} ({}); earlier copies of the database still open with it: if \
                     its key was stolen, run 'onecli key rotate' next",
                    slot.kind
                ))?;
            }
            output.finish()?;
            erased(&client.get(routes::KEY)?)
        }
        KeyCommand::Rotate { passphrase, drop_other_slots, no_wait } => {
            rotate(client, &passphrase, drop_other_slots, no_wait, output)
        }
    }
}

fn status(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let keys: KeyView = client.get(routes::KEY)?;
    if output.is_json() {
        return Ok(output.document(&keys)?);
    }
    output.fields(&[
        ("root key", keys.key_id.clone()),
        ("opened by", format!("slot {}, with {}", keys.opened_slot, keys.opened_at)),
        ("re-key", keys.rekey.as_ref().map(progress).unwrap_or_default()),
        ("erasing", keys.unerased.clone().unwrap_or_default()),
    ])?;
    output.line("")?;
    let rows: Vec<_> = keys
        .slots
        .iter()
        .map(|slot| {
            [
                slot.number.to_string(),
                slot.kind.clone(),
                or_dash(slot.key_id.as_ref()),
                output.time_or_dash(slot.created),
            ]
        })
        .collect();
    Ok(output.table(["SLOT", "KIND", "KEY", "CREATED"], &rows)?)
}

fn progress(rekey: &RekeyView) -> String {
    let fault = rekey.fault.as_ref().map(|fault| format!("; WAITING: {fault}")).unwrap_or_default();
    format!("{} of {} values, from {} to {}{fault}", rekey.done, rekey.total, rekey.from, rekey.to)
}

fn add(client: &Client, request: &SlotAdd, output: &mut Output) -> Result<(), CliError> {
    let added: SlotAdded = client.post(routes::KEY_SLOTS, request)?;
    if output.is_json() {
        return Ok(output.document(&added)?);
    }
    output.line(&format!("key slot {} ({}) opens the vault", added.slot.number, added.slot.kind))?;
    if let Some(key) = &added.recovery_key {
        print_recovery_key(output, added.slot.number, key)?;
    }
    Ok(())
}

fn print_recovery_key(output: &mut Output, slot: u32, key: &str) -> Result<(), CliError> {
    output.line(&format!("recovery key of slot {slot}, shown only once; store it outside this host:"))?;
    output.line("")?;
    output.line(&format!("  {key}"))?;
    output.line("")?;
    Ok(output.line("to use it: onecli-daemon --passphrase-file FILE, with the key in FILE")?)
}

fn rotate(
    client: &Client,
    passphrase: &PassphraseArgs,
    drop_other_slots: bool,
    no_wait: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    // Print this before asking for the passphrases, so that the user can stop.
    output.warning(
        "earlier backups open only with a copy of the old root.key, which is overwritten: keep a copy",
    )?;
    let keys: KeyView = client.get(routes::KEY)?;
    let mut passphrases = Vec::new();
    let slots = keys.slots.iter().filter(|slot| slot.kind == "passphrase").count();
    if let Some(file) = &passphrase.passphrase_file {
        passphrases.push(value::read_passphrase(Some(file), false)?);
    } else if slots > 0 && !drop_other_slots && std::io::stdin().is_terminal() {
        for _ in 0..slots {
            passphrases.push(value::read_passphrase(None, false)?);
        }
    }
    let request = KeyRotate { passphrases, drop_other_slots };
    let rotated: KeyRotated = client.post(routes::KEY_ROTATE, &request)?;
    if output.is_json() {
        output.document(&rotated)?;
    } else {
        output.line(&format!(
            "the root key {} takes over; the daemon serves requests meanwhile",
            rotated.key_id
        ))?;
        if let Some(file) = &rotated.key_file {
            output
                .line(&format!("{file} contains a new key: copy it to the place where you store the key"))?;
            output.line("earlier backups open only with a copy of the old one")?;
        }
        for slot in &rotated.dropped_slots {
            output.line(&format!("key slot {slot} was dropped: its key was not available"))?;
        }
        for key in &rotated.recovery_keys {
            output.line(&format!(
                "the recovery key of slot {} is replaced: the old one opens only earlier backups",
                key.slot
            ))?;
            print_recovery_key(output, key.slot, &key.recovery_key)?;
        }
    }
    // Flush before waiting, so that the user sees the output.
    output.finish()?;
    if no_wait { Ok(()) } else { wait(client, output) }
}

/// Returns an error if removed data is still present in the database files.
fn erased(keys: &KeyView) -> Result<(), CliError> {
    keys.unerased.clone().map_or(Ok(()), |reason| Err(CliError::Unfinished(reason)))
}

/// Shows progress until the new root key has taken over.
fn wait(client: &Client, output: &mut Output) -> Result<(), CliError> {
    Progress::during("sealing again", Unit::Items("values"), |progress| {
        while !has_taken_over(client, progress)? {
            std::thread::sleep(POLL);
        }
        Ok::<_, CliError>(())
    })?;
    if output.is_json() {
        Ok(())
    } else {
        Ok(output.line("done: no value is sealed under the old root key")?)
    }
}

fn has_taken_over(client: &Client, progress: &Progress) -> Result<bool, CliError> {
    let keys: KeyView = client.get(routes::KEY)?;
    let Some(rekey) = &keys.rekey else { return erased(&keys).map(|()| true) };
    progress.at(rekey.done, Some(rekey.total));
    match &rekey.fault {
        None => Ok(false),
        Some(fault) => Err(CliError::Unfinished(format!(
            "the new root key cannot take over yet: {fault}\nhelp: the daemon keeps trying; 'onecli key \
             status' shows the progress"
        ))),
    }
}

/// Reads 32 bytes from a file or standard input (`-`).
fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, ValueError> {
    let failed = |source| ValueError::File { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    source.take(33).read_to_end(&mut bytes).map_err(failed)?;
    bytes.as_slice().try_into().map(Zeroizing::new).map_err(|_| ValueError::NoKey { path: path.to_owned() })
}
