-- The value that the current one replaced, for `vault.keep_replaced`: the end of that time in microseconds since 1970 UTC, and
-- where the value could go, as JSON. NULL for current versions.
ALTER TABLE secret_versions ADD COLUMN kept_until INTEGER;
ALTER TABLE secret_versions ADD COLUMN definition TEXT;
CREATE INDEX secret_versions_kept ON secret_versions (kept_until) WHERE kept_until IS NOT NULL;
