-- When each secret was last injected, as the audit log records it.
CREATE TABLE secret_uses (
    secret  TEXT PRIMARY KEY REFERENCES secrets (id) ON DELETE CASCADE,
    -- Microseconds since the epoch.
    time    INTEGER NOT NULL
) STRICT;

-- Records of requests with several secrets are left out: their next use is recorded.
INSERT INTO secret_uses (secret, time)
SELECT secrets.id, max(audit.time)
FROM audit
JOIN secrets ON secrets.name = json_extract(audit.json, '$.secret')
WHERE audit.verdict = 'inject' AND audit.event = 'decision'
GROUP BY secrets.id;
