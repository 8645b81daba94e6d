//! `key status | add-* | remove-slot | rotate`.

use onecli_api::{
    KeyRotate, KeyRotated, KeyView, RecoveryKey, RekeyView, SlotAdd, SlotAdded, SlotView, WireValue,
};
use onecli_vault::{NewSlot, SlotInfo};
use zeroize::Zeroizing;

use crate::context::AdminContext;
use crate::error::AdminError;

pub(crate) async fn status(context: &AdminContext) -> Result<KeyView, AdminError> {
    let keys = context.handles.vault.key_status(context.handles.store.as_ref()).await?;
    Ok(KeyView {
        key_id: keys.key_id.to_string(),
        opened_at: keys.opened_at,
        opened_slot: keys.opened_slot,
        slots: keys.slots.into_iter().map(view).collect(),
        rekey: keys.rekey.map(|rekey| RekeyView {
            from: rekey.from.to_string(),
            to: rekey.to.to_string(),
            total: rekey.total,
            done: rekey.done,
            fault: rekey.fault,
        }),
        unerased: keys.unerased,
    })
}

pub(crate) async fn add(context: &AdminContext, request: SlotAdd) -> Result<SlotAdded, AdminError> {
    let new = match request {
        SlotAdd::KeyFile {} => NewSlot::KeyFile,
        SlotAdd::Key { key } => NewSlot::Key(key.0),
        SlotAdd::Passphrase { passphrase } => NewSlot::Passphrase(text(&passphrase)?),
        SlotAdd::Recovery {} => NewSlot::Recovery,
    };
    let change = context.begin_change().await?;
    let handles = &context.handles;
    let (slot, recovery) = handles.vault.add_slot(handles.store.as_ref(), new, handles.clock.now()).await?;
    change.apply("key slot add", &slot.number.to_string()).await?;
    handles.host.record("key_slot_added", &format!("slot {} ({})", slot.number, slot.kind));
    Ok(SlotAdded { slot: view(slot), recovery_key: recovery.map(|text| text.to_string()) })
}

pub(crate) async fn remove(context: &AdminContext, number: &str) -> Result<SlotView, AdminError> {
    let number =
        number.parse().map_err(|_| AdminError::Invalid("name a key slot by its number".to_owned()))?;
    let change = context.begin_change().await?;
    let slot = context.handles.vault.remove_slot(context.handles.store.as_ref(), number).await?;
    change.apply("key slot remove", &number.to_string()).await?;
    context.handles.host.record("key_slot_removed", &format!("slot {} ({})", slot.number, slot.kind));
    Ok(view(slot))
}

pub(crate) async fn rotate(context: &AdminContext, request: KeyRotate) -> Result<KeyRotated, AdminError> {
    let passphrases = request.passphrases.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    // After the new root key exists, nothing may be sealed under the old one. Every operation that seals holds this
    // turn as well.
    let change = context.begin_change().await?;
    let handles = &context.handles;
    let begun = handles
        .vault
        .begin_rekey(handles.store.as_ref(), &passphrases, request.drop_other_slots, handles.clock.now())
        .await?;
    let key_id = begun.key_id.to_string();
    change.apply("key rotate", &key_id).await?;
    handles.host.record("key_rotated", &format!("root key {key_id}"));
    Ok(KeyRotated {
        key_id,
        key_file: begun.key_file,
        dropped_slots: begun.dropped,
        recovery_keys: begun
            .recovery
            .iter()
            .map(|(slot, text)| RecoveryKey { slot: *slot, recovery_key: text.to_string() })
            .collect(),
    })
}

fn text(value: &WireValue) -> Result<Zeroizing<String>, AdminError> {
    let text = std::str::from_utf8(value.0.expose());
    text.map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| AdminError::Invalid("a passphrase is UTF-8 text".to_owned()))
}

fn view(slot: SlotInfo) -> SlotView {
    SlotView { number: slot.number, kind: slot.kind.to_owned(), key_id: slot.key_id, created: slot.created }
}
