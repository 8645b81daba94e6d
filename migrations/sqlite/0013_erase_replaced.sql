-- Nothing uses the values that were replaced before.
DELETE FROM secret_versions WHERE NOT EXISTS
    (SELECT 1 FROM secrets WHERE secrets.id = secret_versions.secret AND secrets.version = secret_versions.version);
