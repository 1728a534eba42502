-- Why a purge was ordered, for those who ask later.
ALTER TABLE purge ADD COLUMN reason TEXT NOT NULL DEFAULT '';
-- Whose messages are forwarded where, so that a user can be taken out of the copies.
CREATE TABLE message_forward (
    message_id UUID NOT NULL PRIMARY KEY,
    channel_id UUID NOT NULL,
    author_id  UUID NOT NULL
);
CREATE INDEX message_forward_author ON message_forward (author_id, message_id);
INSERT INTO message_forward (message_id, channel_id, author_id)
    SELECT id, channel_id, (forward_of::json->'author'->>'id')::uuid FROM message WHERE forward_of IS NOT NULL;
-- Whom an earlier text mentioned was stored, and never shown.
UPDATE message_edit SET mentions = NULL WHERE mentions IS NOT NULL;
