-- A thread as everybody sees it (replies, newest reply, participants): JSON in the row of its first message.
ALTER TABLE message ADD COLUMN thread TEXT;
-- The threads of a channel by their newest reply.
CREATE TABLE message_thread (
    root_message_id UUID NOT NULL PRIMARY KEY,
    channel_id      UUID NOT NULL,
    last_reply_seq  BIGINT NOT NULL
);
CREATE INDEX message_thread_channel ON message_thread (channel_id, last_reply_seq);
-- Who follows a thread, and how far they have read it. decided_seq is the newest message of the channel when that was
-- decided: an automatic follow does not undo a later unfollow.
CREATE TABLE message_thread_member (
    user_id         UUID NOT NULL,
    root_message_id UUID NOT NULL,
    channel_id      UUID NOT NULL,
    following       BOOLEAN NOT NULL,
    decided_seq     BIGINT NOT NULL,
    read_seq        BIGINT NOT NULL,
    user_rev        BIGINT NOT NULL,
    PRIMARY KEY (user_id, root_message_id)
);
CREATE INDEX message_thread_member_rev ON message_thread_member (user_id, user_rev);
