-- Rows of several logs, as of several hosts, share the table: a log's id and its sequence number name a record. `id` is
-- the order of arrival, which followers go by.

CREATE TABLE audit_rows (
    id         INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    log        TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    request_id TEXT,
    event      TEXT NOT NULL,
    agent      TEXT,
    host       TEXT,
    verdict    TEXT,
    code       TEXT,
    json       TEXT NOT NULL,
    UNIQUE (log, seq)
) STRICT;

INSERT INTO audit_rows (log, seq, time, request_id, event, agent, host, verdict, code, json)
    SELECT '00000000-0000-0000-0000-000000000000', seq, time, request_id, event, agent, host, verdict, code, json
    FROM audit ORDER BY seq;
DROP TABLE audit;
ALTER TABLE audit_rows RENAME TO audit;

CREATE INDEX audit_time ON audit (time);
CREATE INDEX audit_agent ON audit (agent, id);
CREATE INDEX audit_host ON audit (host, id);
CREATE INDEX audit_code ON audit (code, id);
CREATE INDEX audit_request ON audit (request_id);
