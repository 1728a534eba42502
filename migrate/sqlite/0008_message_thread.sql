-- A thread as everybody sees it (replies, newest reply, participants): JSON in the row of its first message.
ALTER TABLE message ADD COLUMN thread TEXT;
-- The threads of a channel by their newest reply.
CREATE TABLE message_thread (
    root_message_id BLOB NOT NULL PRIMARY KEY,
    channel_id      BLOB NOT NULL,
    last_reply_seq  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX message_thread_channel ON message_thread (channel_id, last_reply_seq);
-- Who follows a thread, and how far they have read it. decided_seq is the newest message of the channel when that was
-- decided: an automatic follow does not undo a later unfollow.
CREATE TABLE message_thread_member (
    user_id         BLOB NOT NULL,
    root_message_id BLOB NOT NULL,
    channel_id      BLOB NOT NULL,
    following       INTEGER NOT NULL,
    decided_seq     INTEGER NOT NULL,
    read_seq        INTEGER NOT NULL,
    user_rev        INTEGER NOT NULL,
    PRIMARY KEY (user_id, root_message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_thread_member_rev ON message_thread_member (user_id, user_rev);
