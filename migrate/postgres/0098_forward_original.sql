-- Which message a copy is of, so that its text goes with that of the original; NULL when it has gone. `original_gone`: the
-- original has lost its text, or is gone altogether, and the copy has its text still (docs/adr/0052).
ALTER TABLE message_forward ADD COLUMN original_id UUID, ADD COLUMN original_gone BOOLEAN NOT NULL DEFAULT FALSE;
-- Of a user who was taken out, the rows were removed.
INSERT INTO message_forward (message_id, channel_id, author_id, original_id, original_gone)
    SELECT m.id, m.channel_id, (m.forward_of::json->'author'->>'id')::uuid, (m.forward_of::json->>'id')::uuid,
        o.id IS NULL OR (o.deleted_at IS NOT NULL AND o.body = '')
    FROM message m LEFT JOIN message o ON o.id = (m.forward_of::json->>'id')::uuid
    WHERE m.forward_of IS NOT NULL
    ON CONFLICT (message_id) DO UPDATE SET original_id = excluded.original_id, original_gone = excluded.original_gone;
CREATE INDEX message_forward_original ON message_forward (original_id) WHERE NOT original_gone;
CREATE INDEX message_forward_gone ON message_forward (message_id, channel_id, author_id) WHERE original_gone;

-- Messages that have lost their text, or are gone altogether, until nobody can forward them any more: their copies are
-- marked from `look_at` on; 0: they have not been looked for yet.
CREATE TABLE message_gone (
    original_id UUID   NOT NULL PRIMARY KEY,
    look_at     BIGINT NOT NULL
);
CREATE INDEX message_gone_look ON message_gone (look_at);
