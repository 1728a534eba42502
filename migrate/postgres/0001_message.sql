-- Counters of a channel. One row each; every write to the channel takes this row's lock first, so numbers have
-- no holes and become visible in order. Nothing that changes is indexed, and half-empty pages keep updates in place.
CREATE TABLE channel_state (
    channel_id      UUID   NOT NULL PRIMARY KEY,
    last_seq        BIGINT NOT NULL DEFAULT 0,
    last_cseq       BIGINT NOT NULL DEFAULT 0,
    last_rev        BIGINT NOT NULL DEFAULT 0,
    last_ms         BIGINT NOT NULL DEFAULT 0,
    last_message_id UUID,
    last_message_at BIGINT,
    message_count   BIGINT NOT NULL DEFAULT 0,
    pin_count       BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE message (
    id                  UUID    NOT NULL PRIMARY KEY,
    channel_id          UUID    NOT NULL,
    seq                 BIGINT  NOT NULL,
    cseq                BIGINT  NOT NULL,
    author_id           UUID    NOT NULL,
    author_username     TEXT    NOT NULL,
    type                INTEGER NOT NULL DEFAULT 0,
    content_type        INTEGER NOT NULL DEFAULT 0,
    body                TEXT    NOT NULL,
    thread_id           UUID,
    tseq                BIGINT,
    reply_to_message_id UUID,
    mentions            TEXT,
    flags               INTEGER NOT NULL DEFAULT 0,
    nonce               TEXT    COLLATE "C",
    content_hash        BIGINT  NOT NULL,
    version             BIGINT  NOT NULL DEFAULT 1,
    rev                 BIGINT  NOT NULL DEFAULT 0,
    created_at          BIGINT  NOT NULL,
    edited_at           BIGINT,
    edit_count          INTEGER NOT NULL DEFAULT 0,
    deleted_at          BIGINT,
    deleted_by          UUID,
    pinned_at           BIGINT,
    expires_at          BIGINT,
    forward_of          TEXT,
    metadata            TEXT,
    reactions           TEXT,
    attachment_count    INTEGER NOT NULL DEFAULT 0,
    embed_count         INTEGER NOT NULL DEFAULT 0,
    poll_id             UUID,
    reply_count         BIGINT  NOT NULL DEFAULT 0,
    last_reply_at       BIGINT,
    last_reply_seq      BIGINT
);
-- History, sync and arithmetic all walk this one; unique, so that a hole-free numbering is also the database's opinion.
CREATE UNIQUE INDEX message_channel_seq ON message (channel_id, seq);
-- One message per nonce. A day later the nonce is taken off the old message when somebody uses it again.
CREATE UNIQUE INDEX message_nonce ON message (channel_id, author_id, nonce) WHERE nonce IS NOT NULL;
-- Who writes in a channel has read it: the author's newest message is his read position, without a row to update
-- for every send. Messages that a program sent in his name (flag 16) do not count.
CREATE INDEX message_own ON message (channel_id, author_id, seq) WHERE (flags & 16) = 0;
CREATE INDEX message_thread_seq ON message (thread_id, seq) WHERE thread_id IS NOT NULL;
CREATE INDEX message_expires ON message (expires_at) WHERE expires_at IS NOT NULL;

-- One row per durable mutation of a message: what a client that was away has to look at again.
CREATE TABLE channel_change (
    channel_id UUID    NOT NULL,
    rev        BIGINT  NOT NULL,
    kind       INTEGER NOT NULL,
    message_id UUID    NOT NULL,
    seq        BIGINT  NOT NULL,
    actor_id   UUID    NOT NULL,
    at         BIGINT  NOT NULL,
    PRIMARY KEY (channel_id, rev)
);
CREATE INDEX channel_change_age ON channel_change USING brin (at);

-- Deleted messages, so that unread counts stay exact without looking at the messages.
CREATE TABLE message_tombstone (
    channel_id UUID    NOT NULL,
    seq        BIGINT  NOT NULL,
    counted    BOOLEAN NOT NULL,
    thread_id  UUID,
    tseq       BIGINT,
    PRIMARY KEY (channel_id, seq)
);

-- Earlier texts of edited messages.
CREATE TABLE message_edit (
    message_id UUID   NOT NULL,
    version    BIGINT NOT NULL,
    channel_id UUID   NOT NULL,
    editor_id  UUID   NOT NULL,
    body       TEXT   NOT NULL,
    mentions   TEXT,
    edited_at  BIGINT NOT NULL,
    reason     TEXT,
    PRIMARY KEY (message_id, version)
);

-- kind: 0 user, 1 role, 2 channel, 3 here (the channel is the target of both), 4 the author's own message behind
-- his read position.
CREATE TABLE message_mention (
    message_id UUID    NOT NULL,
    kind       INTEGER NOT NULL,
    target_id  UUID    NOT NULL,
    author_id  UUID    NOT NULL,
    channel_id UUID    NOT NULL,
    seq        BIGINT  NOT NULL,
    thread_id  UUID,
    created_at BIGINT  NOT NULL,
    PRIMARY KEY (message_id, kind, target_id)
);
CREATE INDEX message_mention_target ON message_mention (target_id, channel_id, seq);

-- How far somebody has read; counts are derived from this and the channel's counters, never incremented.
CREATE TABLE message_read_state (
    user_id         UUID    NOT NULL,
    channel_id      UUID    NOT NULL,
    read_seq        BIGINT  NOT NULL DEFAULT 0,
    read_cseq       BIGINT  NOT NULL DEFAULT 0,
    read_message_id UUID,
    joined_seq      BIGINT  NOT NULL DEFAULT 0,
    own_floor       BIGINT  NOT NULL DEFAULT 0,
    notify_level    INTEGER NOT NULL DEFAULT 0,
    muted_until     BIGINT,
    user_rev        BIGINT  NOT NULL DEFAULT 0,
    updated_at      BIGINT  NOT NULL,
    PRIMARY KEY (user_id, channel_id)
) WITH (fillfactor = 80);

-- One counter per user for what only this user's devices see: read positions, drafts, bookmarks.
CREATE TABLE user_state (
    user_id  UUID   NOT NULL PRIMARY KEY,
    last_rev BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
