-- Values of a channel that messages change under a condition: each has a version, and only a message that expects the
-- present one sets it.
CREATE TABLE channel_key (
    channel_id BLOB    NOT NULL,
    key        TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    value      TEXT    NOT NULL,
    PRIMARY KEY (channel_id, key)
) STRICT, WITHOUT ROWID;
