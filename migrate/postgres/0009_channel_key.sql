-- Values of a channel that messages change under a condition: each has a version, and only a message that expects the
-- present one sets it.
CREATE TABLE channel_key (
    channel_id UUID   NOT NULL,
    key        TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    value      TEXT   NOT NULL,
    PRIMARY KEY (channel_id, key)
);
