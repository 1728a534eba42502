-- Where the history of a channel begins: everything up to this number was removed because its time was over. The counter
-- of unread messages at that place stands beside it, so that counts stay right for those who had read less.
ALTER TABLE channel_state ADD COLUMN horizon_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel_state ADD COLUMN horizon_cseq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel_state ADD COLUMN horizon_id BLOB;

-- When a deleted message was deleted, until its text is removed as well; then null. 0: it stands in the message.
ALTER TABLE message_tombstone ADD COLUMN deleted_at INTEGER DEFAULT 0;
CREATE INDEX message_tombstone_due ON message_tombstone (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX message_tombstone_kept ON message_tombstone (channel_id, deleted_at) WHERE deleted_at IS NOT NULL;

-- What belongs to a message that is removed, and is kept by user.
CREATE INDEX message_bookmark_message ON message_bookmark (message_id);
CREATE INDEX message_thread_member_root ON message_thread_member (root_message_id);

-- Legal holds: what nothing may be removed from, and what became of earlier ones.
CREATE TABLE legal_hold (
    id          BLOB    NOT NULL PRIMARY KEY,
    -- 0: a channel. 1: a user.
    kind        INTEGER NOT NULL,
    target_id   BLOB    NOT NULL,
    reason      TEXT    NOT NULL,
    set_by      TEXT    NOT NULL,
    set_at      INTEGER NOT NULL,
    released_by TEXT,
    released_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX legal_hold_target ON legal_hold (target_id) WHERE released_at IS NULL;
-- Whoever removes something shares this row, and whoever sets a hold has it alone: a hold that is set is in force.
CREATE TABLE legal_hold_lock (id INTEGER NOT NULL PRIMARY KEY) STRICT;
INSERT INTO legal_hold_lock (id) VALUES (1);

-- Who wrote in a channel only through programs has a row there as well, so that what they wrote is found.
INSERT INTO message_author (author_id, channel_id, last_seq, last_cseq, last_at)
    SELECT DISTINCT author_id, channel_id, 0, 0, 0 FROM message WHERE (flags & 16) <> 0
    ON CONFLICT (author_id, channel_id) DO NOTHING;
