-- Why a purge was ordered, for those who ask later.
ALTER TABLE purge ADD COLUMN reason TEXT NOT NULL DEFAULT '';
-- Whose messages are forwarded where, so that a user can be taken out of the copies.
CREATE TABLE message_forward (
    message_id BLOB NOT NULL PRIMARY KEY,
    channel_id BLOB NOT NULL,
    author_id  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX message_forward_author ON message_forward (author_id, message_id);
INSERT INTO message_forward (message_id, channel_id, author_id)
    SELECT id, channel_id, unhex(replace(json_extract(forward_of, '$.author.id'), '-', '')) FROM message
    WHERE forward_of IS NOT NULL;
-- Whom an earlier text mentioned was stored, and never shown.
UPDATE message_edit SET mentions = NULL WHERE mentions IS NOT NULL;
