-- Messages that other programs want to send. Only PostgreSQL has the function that writes them: the file of SQLite
-- belongs to one server.
CREATE TABLE outbox_message (
    number      INTEGER NOT NULL PRIMARY KEY,
    id          BLOB    NOT NULL,
    channel_id  BLOB    NOT NULL,
    author_id   BLOB    NOT NULL,
    author_name TEXT    NOT NULL,
    type        INTEGER NOT NULL,
    body        TEXT    NOT NULL,
    nonce       TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    ack_requested INTEGER NOT NULL,
    failed_at   INTEGER,
    reason      TEXT
) STRICT;
