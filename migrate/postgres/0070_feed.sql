-- The feed: one row for each transaction of the append path, written by it. It names what the transaction added to its
-- channels; the events themselves are read from `message` and `channel_change` (docs/adr/0040).
CREATE TABLE feed_batch (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     BIGINT NOT NULL,
    -- 48 bytes for each channel: its id, then the last `seq` and `rev` before and after, big-endian.
    ranges BYTEA  NOT NULL
);

-- How far the oldest rows were removed.
CREATE TABLE feed_state (
    id    BIGINT NOT NULL PRIMARY KEY,
    swept BIGINT NOT NULL
);
INSERT INTO feed_state (id, swept) VALUES (1, 0);
