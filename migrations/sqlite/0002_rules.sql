-- Rules: what is allowed, denied, limited or asked about. Ids are small numbers, because people type them, and are never
-- used again: AUTOINCREMENT. NULL means: all agents, all hosts, all ports, any address, no rate.

CREATE TABLE rules (
    id      INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
    agent   TEXT REFERENCES agents (id) ON DELETE CASCADE,
    action  TEXT NOT NULL CHECK (action IN ('allow', 'deny', 'limit', 'approve')),
    host    TEXT,
    port    INTEGER CHECK (port BETWEEN 1 AND 65535),
    methods TEXT NOT NULL,
    paths   TEXT NOT NULL,
    address TEXT,
    rate    TEXT
) STRICT;
CREATE INDEX rules_agent ON rules (agent);
