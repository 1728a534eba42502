-- A poll as everybody sees it, with its totals: JSON in the row of its message, written in the same transaction.
ALTER TABLE message ADD COLUMN poll TEXT;
-- What the server needs of a poll besides: when it closes, and the secret that hides who votes in an anonymous one
-- (destroyed when the poll closes).
CREATE TABLE message_poll (
    message_id UUID NOT NULL PRIMARY KEY,
    channel_id UUID NOT NULL,
    secret     UUID,
    closes_at  BIGINT,
    closed_at  BIGINT
);
CREATE INDEX message_poll_open ON message_poll (closes_at) WHERE closed_at IS NULL AND closes_at IS NOT NULL;
-- One row per voter: bit n of choices stands for option n. In an anonymous poll the voter is a keyed hash.
CREATE TABLE message_poll_vote (
    message_id UUID NOT NULL,
    voter_id   UUID NOT NULL,
    choices    BIGINT NOT NULL,
    voted_at   BIGINT NOT NULL,
    PRIMARY KEY (message_id, voter_id)
);
