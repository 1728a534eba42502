-- What somebody has begun to write: one text per channel and thread (thread_key is zero outside of threads). A cleared
-- draft stays as a row without text, so that the user's other devices learn of it.
CREATE TABLE message_draft (
    user_id             BLOB    NOT NULL,
    channel_id          BLOB    NOT NULL,
    thread_key          BLOB    NOT NULL,
    body                TEXT    NOT NULL,
    reply_to_message_id BLOB,
    version             INTEGER NOT NULL,
    user_rev            INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    deleted_at          INTEGER,
    PRIMARY KEY (user_id, channel_id, thread_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_draft_rev ON message_draft (user_id, user_rev);
CREATE INDEX message_draft_deleted ON message_draft (deleted_at) WHERE deleted_at IS NOT NULL;
-- The newest user_rev of a row that was forgotten: a device that was away for longer starts anew.
ALTER TABLE user_state ADD COLUMN forgotten_rev INTEGER NOT NULL DEFAULT 0;
