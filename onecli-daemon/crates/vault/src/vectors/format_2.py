#!/usr/bin/env python3
"""Writes format_2.json: what the vault's format 2 gives for fixed inputs.

An implementation of its own, after the descriptions in envelope.rs, keyring.rs, binding.rs and slots.rs, with Python's
`cryptography` (44 or later). The JSON file is frozen: stored values have to open for ever. Run this to check that it is
still what the descriptions say: `python3 format_2.py | cmp - format_2.json`.
"""

import base64
import hashlib
import hmac
import json
import struct
import uuid

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

VAULT = uuid.UUID(int=0x4242)
SECRET = uuid.UUID(int=0x1111)
AGENT = uuid.UUID(int=0x2222)
ROOT = bytes(range(0, 32))
SLOT = bytes(range(32, 64))
DERIVATION = bytes(range(64, 96))
DATA_KEY = b"\xa0" * 32
SALT = b"\xa1" * 32
BINDING = hashlib.sha256(b"where it may go").digest()
VERSION = struct.pack(">I", 3)


def subkey(key, salt, label, length=32):
    return HKDF(SHA256(), length, salt, label).derive(key)


def part(key, bound, plaintext):
    both = HKDFExpand(SHA256(), 64, bound).derive(key)
    return both[32:] + AESGCM(both[:32]).encrypt(bytes(12), plaintext, bound)


def begin(kind):
    return b"onecli" + bytes([2, kind]) + VAULT.bytes


KEK = subkey(ROOT, b"onecli root key", b"onecli/2/kek")
ROOT_ID = subkey(ROOT, b"onecli root key", b"onecli/2/key-id", 8)
SLOT_ID = subkey(SLOT, b"onecli slot key", b"onecli/2/key-id", 8)


def sealed(wrap_kind, body_kind, subject, binding, plaintext):
    wrap = part(KEK, begin(wrap_kind) + ROOT_ID + SALT + subject + binding, DATA_KEY)
    return b"\x02" + ROOT_ID + SALT + wrap + part(DATA_KEY, begin(body_kind) + subject, plaintext)


def derived(label):
    return subkey(DERIVATION, b"onecli derivation key", label)


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


method = '{"kind":"key","id":"%s"}' % SLOT_ID.hex()
row = SECRET.bytes + VERSION
token = "onecli_at_" + "A" * 43
recovery = base64.b32encode(SLOT + hashlib.sha256(SLOT).digest()[:3]).decode().lower().rstrip("=")
placeholder = mac(derived(b"onecli/2/placeholder"), AGENT.bytes + SECRET.bytes + struct.pack(">I", 7))[:20]
bound = json.dumps({"name": "key", "target": {"port": 443}}, separators=(",", ":")).encode()

vectors = {
    "root_key_id": ROOT_ID.hex(),
    "slot_key_id": SLOT_ID.hex(),
    "current": sealed(2, 1, row, BINDING, b"frozen value 1").hex(),
    "kept": sealed(3, 1, row, b"", b"frozen value 1").hex(),
    "replaced": sealed(8, 1, row, BINDING, b"frozen value 1").hex(),
    "blob": sealed(5, 4, b"ca.key", b"", b"frozen blob").hex(),
    "slot_method": method,
    "slot": (b"\x02" + SALT + part(SLOT, begin(6) + ROOT_ID + SALT + method.encode(), ROOT)).hex(),
    "passphrase_key": Argon2id(salt=b"\xa0" * 16, length=32, iterations=3, lanes=4, memory_cost=65536)
    .derive(b"correct horse battery staple")
    .hex(),
    "recovery_key": "onecli-rk-" + "-".join(recovery[i : i + 4] for i in range(0, len(recovery), 4)),
    "token_hash": mac(derived(b"onecli/2/token-hash"), token.encode()).hex(),
    "placeholder": "onecli_ph_" + base64.b32encode(placeholder).decode().lower(),
    "audit": derived(b"onecli/2/audit").hex(),
    "session": (b"\xa0" * 16 + part(derived(b"onecli/2/session"), begin(7) + b"\xa0" * 16, b"frozen session")).hex(),
    "binding": hashlib.sha256(b"onecli/2/binding\0" + bound).hexdigest(),
}
print(json.dumps(vectors, indent=2))
