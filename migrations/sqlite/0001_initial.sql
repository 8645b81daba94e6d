-- Ids are UUIDs as text, times are microseconds since 1970 UTC, booleans are 0 or 1, patterns and placements are
-- the text or JSON forms of the program's types.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE agents (
    id         TEXT PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL UNIQUE,
    factors    TEXT NOT NULL,
    cgroup     TEXT NOT NULL UNIQUE,
    os_user    TEXT UNIQUE,
    egress     TEXT NOT NULL,
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    generation INTEGER NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    token_hash BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32)
) STRICT;

CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY NOT NULL CHECK (length(token_hash) = 32),
    agent      TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    expires    INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_agent ON sessions (agent);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE secrets (
    id              TEXT PRIMARY KEY NOT NULL,
    name            TEXT NOT NULL UNIQUE,
    host            TEXT NOT NULL,
    port            INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    methods         TEXT NOT NULL,
    paths           TEXT NOT NULL,
    allow_plaintext INTEGER NOT NULL CHECK (allow_plaintext IN (0, 1)),
    placement       TEXT NOT NULL,
    env             TEXT,
    enabled         INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    version         INTEGER NOT NULL CHECK (version BETWEEN 1 AND 4294967295)
) STRICT;

-- Every value a secret ever had; `secrets.version` names the current one.
CREATE TABLE secret_versions (
    secret  TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    sealed  BLOB NOT NULL,
    PRIMARY KEY (secret, version)
) STRICT;

CREATE TABLE grants (
    agent  TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    secret TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    PRIMARY KEY (agent, secret)
) STRICT;
CREATE INDEX grants_secret ON grants (secret);

-- A copy of the log's lines for searching. Names agents by text: their rows outlive them.
CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY NOT NULL,
    time       INTEGER NOT NULL,
    request_id TEXT,
    event      TEXT NOT NULL,
    agent      TEXT,
    host       TEXT,
    verdict    TEXT,
    code       TEXT,
    json       TEXT NOT NULL
) STRICT;
CREATE INDEX audit_time ON audit (time);
CREATE INDEX audit_agent ON audit (agent, seq);
CREATE INDEX audit_host ON audit (host, seq);
