-- Leases of dynamic secrets that were not given back yet. An agent's leases outlive its row until they are.
CREATE TABLE leases (
    id     TEXT PRIMARY KEY NOT NULL,
    agent  TEXT NOT NULL,
    path   TEXT NOT NULL
) STRICT;
