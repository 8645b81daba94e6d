-- What the vault keeps besides the secrets' values. Sealed values of format 1 do not open any more.

-- The root key, sealed under each key that opens it. While a new root key takes over there are slots of both.
CREATE TABLE key_slots (
    number   INTEGER NOT NULL CHECK (number BETWEEN 1 AND 4294967295),
    -- Id of the root key in it, 8 bytes.
    root     BLOB NOT NULL CHECK (length(root) = 8),
    -- How the slot's key is had, as JSON.
    method   TEXT NOT NULL,
    sealed   BLOB NOT NULL,
    created  INTEGER NOT NULL,
    PRIMARY KEY (number, root)
) STRICT;

-- The daemon's own sealed values, such as the private key of the CA.
CREATE TABLE sealed_blobs (
    purpose TEXT PRIMARY KEY NOT NULL,
    sealed  BLOB NOT NULL
) STRICT;

DELETE FROM meta WHERE key = 'ca.key';
