-- What is public about a value: its alphabet and the bound of its length, as 'token/128'. NULL for values that were stored
-- before; their class follows from the value when it is opened.
ALTER TABLE secret_versions ADD COLUMN class TEXT;
