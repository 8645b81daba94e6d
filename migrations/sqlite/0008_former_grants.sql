-- Grants that were taken back: the agent may have stored the value where it can still read.
CREATE TABLE former_grants (
    agent   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    secret  TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    PRIMARY KEY (agent, secret)
) STRICT;
CREATE INDEX former_grants_secret ON former_grants (secret);
