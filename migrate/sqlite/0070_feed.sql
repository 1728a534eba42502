-- The feed: one row for each transaction of the append path, written by it. It names what the transaction added to its
-- channels; the events themselves are read from `message` and `channel_change` (docs/adr/0040).
CREATE TABLE feed_batch (
    id     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    -- 48 bytes for each channel: its id, then the last `seq` and `rev` before and after, big-endian.
    ranges BLOB    NOT NULL
) STRICT;

-- How far the oldest rows were removed.
CREATE TABLE feed_state (
    id    INTEGER NOT NULL PRIMARY KEY,
    swept INTEGER NOT NULL
) STRICT;
INSERT INTO feed_state (id, swept) VALUES (1, 0);
