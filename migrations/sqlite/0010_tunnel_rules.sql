-- An 'allow' whose connections pass unread even where a secret is stored for the host.

ALTER TABLE rules ADD COLUMN tunnel INTEGER NOT NULL DEFAULT 0 CHECK (tunnel IN (0, 1));
