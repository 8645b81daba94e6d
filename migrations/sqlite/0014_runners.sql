-- The uid of the person whose command made a request, for a session token and for an audit row. NULL where it is not known.

ALTER TABLE sessions ADD COLUMN launched_by INTEGER CHECK (launched_by BETWEEN 0 AND 4294967295);
ALTER TABLE audit ADD COLUMN launched_by INTEGER CHECK (launched_by BETWEEN 0 AND 4294967295);
CREATE INDEX audit_launched_by ON audit (agent, launched_by, id) WHERE launched_by IS NOT NULL;

-- Whether a runner may read records of the agent's other runs, and since when the entry exists: older records stay hidden.
ALTER TABLE runners ADD COLUMN sees_all INTEGER NOT NULL DEFAULT 0 CHECK (sees_all IN (0, 1));
ALTER TABLE runners ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
