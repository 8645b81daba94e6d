-- Who besides administrators may start commands as an agent: a user's name, or '@' and a group's.
CREATE TABLE runners (
    agent  TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    runner TEXT NOT NULL,
    PRIMARY KEY (agent, runner)
) STRICT;
