-- Messages that somebody has saved, with a note and a time to be reminded. A removed bookmark stays as a row without
-- note, so that the user's other devices learn of it.
CREATE TABLE message_bookmark (
    user_id     UUID   NOT NULL,
    message_id  UUID   NOT NULL,
    channel_id  UUID   NOT NULL,
    note        TEXT,
    remind_at   BIGINT,
    reminded_at BIGINT,
    user_rev    BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    deleted_at  BIGINT,
    PRIMARY KEY (user_id, message_id)
);
CREATE INDEX message_bookmark_rev ON message_bookmark (user_id, user_rev);
CREATE INDEX message_bookmark_due ON message_bookmark (remind_at) WHERE remind_at IS NOT NULL;
CREATE INDEX message_bookmark_deleted ON message_bookmark (deleted_at) WHERE deleted_at IS NOT NULL;
