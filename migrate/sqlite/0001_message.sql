-- Counters of a channel. One row each; every write to the channel takes this row's lock first, so numbers have
-- no holes and become visible in order. Nothing that changes is indexed.
CREATE TABLE channel_state (
    channel_id      BLOB    NOT NULL PRIMARY KEY,
    last_seq        INTEGER NOT NULL DEFAULT 0,
    last_cseq       INTEGER NOT NULL DEFAULT 0,
    last_rev        INTEGER NOT NULL DEFAULT 0,
    last_ms         INTEGER NOT NULL DEFAULT 0,
    last_message_id BLOB,
    last_message_at INTEGER,
    message_count   INTEGER NOT NULL DEFAULT 0,
    pin_count       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    id                  BLOB    NOT NULL PRIMARY KEY,
    channel_id          BLOB    NOT NULL,
    seq                 INTEGER NOT NULL,
    cseq                INTEGER NOT NULL,
    author_id           BLOB    NOT NULL,
    author_username     TEXT    NOT NULL,
    type                INTEGER NOT NULL DEFAULT 0,
    content_type        INTEGER NOT NULL DEFAULT 0,
    body                TEXT    NOT NULL,
    thread_id           BLOB,
    tseq                INTEGER,
    reply_to_message_id BLOB,
    mentions            TEXT,
    flags               INTEGER NOT NULL DEFAULT 0,
    nonce               TEXT,
    content_hash        INTEGER NOT NULL,
    version             INTEGER NOT NULL DEFAULT 1,
    rev                 INTEGER NOT NULL DEFAULT 0,
    created_at          INTEGER NOT NULL,
    edited_at           INTEGER,
    edit_count          INTEGER NOT NULL DEFAULT 0,
    deleted_at          INTEGER,
    deleted_by          BLOB,
    pinned_at           INTEGER,
    expires_at          INTEGER,
    forward_of          TEXT,
    metadata            TEXT,
    reactions           TEXT,
    attachment_count    INTEGER NOT NULL DEFAULT 0,
    embed_count         INTEGER NOT NULL DEFAULT 0,
    poll_id             BLOB,
    reply_count         INTEGER NOT NULL DEFAULT 0,
    last_reply_at       INTEGER,
    last_reply_seq      INTEGER
) STRICT;
-- History, sync and arithmetic all walk this one; unique, so that a hole-free numbering is also the database's opinion.
CREATE UNIQUE INDEX message_channel_seq ON message (channel_id, seq);
-- One message per nonce. A day later the nonce is taken off the old message when somebody uses it again.
CREATE UNIQUE INDEX message_nonce ON message (channel_id, author_id, nonce) WHERE nonce IS NOT NULL;
-- Who writes in a channel has read it: the author's newest message is his read position, without a row to update
-- for every send. Messages that a program sent in his name (flag 16) do not count.
CREATE INDEX message_own ON message (channel_id, author_id, seq) WHERE flags & 16 = 0;
CREATE INDEX message_thread_seq ON message (thread_id, seq) WHERE thread_id IS NOT NULL;
CREATE INDEX message_expires ON message (expires_at) WHERE expires_at IS NOT NULL;

-- One row per durable mutation of a message: what a client that was away has to look at again.
CREATE TABLE channel_change (
    channel_id BLOB    NOT NULL,
    rev        INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    message_id BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    actor_id   BLOB    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (channel_id, rev)
) STRICT, WITHOUT ROWID;

-- Deleted messages, so that unread counts stay exact without looking at the messages.
CREATE TABLE message_tombstone (
    channel_id BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    counted    INTEGER NOT NULL,
    thread_id  BLOB,
    tseq       INTEGER,
    PRIMARY KEY (channel_id, seq)
) STRICT, WITHOUT ROWID;

-- Earlier texts of edited messages.
CREATE TABLE message_edit (
    message_id BLOB    NOT NULL,
    version    INTEGER NOT NULL,
    channel_id BLOB    NOT NULL,
    editor_id  BLOB    NOT NULL,
    body       TEXT    NOT NULL,
    mentions   TEXT,
    edited_at  INTEGER NOT NULL,
    reason     TEXT,
    PRIMARY KEY (message_id, version)
) STRICT, WITHOUT ROWID;

-- kind: 0 user, 1 role, 2 channel, 3 here (the channel is the target of both), 4 the author's own message behind
-- his read position.
CREATE TABLE message_mention (
    message_id BLOB    NOT NULL,
    kind       INTEGER NOT NULL,
    target_id  BLOB    NOT NULL,
    author_id  BLOB    NOT NULL,
    channel_id BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    thread_id  BLOB,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (message_id, kind, target_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_mention_target ON message_mention (target_id, channel_id, seq);

-- How far somebody has read; counts are derived from this and the channel's counters, never incremented.
CREATE TABLE message_read_state (
    user_id         BLOB    NOT NULL,
    channel_id      BLOB    NOT NULL,
    read_seq        INTEGER NOT NULL DEFAULT 0,
    read_cseq       INTEGER NOT NULL DEFAULT 0,
    read_message_id BLOB,
    joined_seq      INTEGER NOT NULL DEFAULT 0,
    own_floor       INTEGER NOT NULL DEFAULT 0,
    notify_level    INTEGER NOT NULL DEFAULT 0,
    muted_until     INTEGER,
    user_rev        INTEGER NOT NULL DEFAULT 0,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, channel_id)
) STRICT, WITHOUT ROWID;

-- One counter per user for what only this user's devices see: read positions, drafts, bookmarks.
CREATE TABLE user_state (
    user_id  BLOB    NOT NULL PRIMARY KEY,
    last_rev INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
