-- What somebody has begun to write: one text per channel and thread (thread_key is zero outside of threads). A cleared
-- draft stays as a row without text, so that the user's other devices learn of it.
CREATE TABLE message_draft (
    user_id             UUID   NOT NULL,
    channel_id          UUID   NOT NULL,
    thread_key          UUID   NOT NULL,
    body                TEXT   NOT NULL,
    reply_to_message_id UUID,
    version             BIGINT NOT NULL,
    user_rev            BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    deleted_at          BIGINT,
    PRIMARY KEY (user_id, channel_id, thread_key)
);
CREATE INDEX message_draft_rev ON message_draft (user_id, user_rev);
CREATE INDEX message_draft_deleted ON message_draft (deleted_at) WHERE deleted_at IS NOT NULL;
-- The newest user_rev of a row that was forgotten: a device that was away for longer starts anew.
ALTER TABLE user_state ADD COLUMN forgotten_rev BIGINT NOT NULL DEFAULT 0;
