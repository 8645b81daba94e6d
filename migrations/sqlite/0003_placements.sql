-- What sets a secret apart from a plain value, as JSON: its template, the form of its placeholders, how its value becomes
-- a credential. `host` holds one or more patterns with commas between them, `env` one or more variables.
ALTER TABLE secrets ADD COLUMN profile TEXT NOT NULL DEFAULT '{}';
