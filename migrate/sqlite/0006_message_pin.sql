-- The pinned messages of a channel. When a message is pinned it also shows in message.pinned_at.
CREATE TABLE message_pin (
    channel_id BLOB NOT NULL,
    message_id BLOB NOT NULL,
    pinned_by  BLOB NOT NULL,
    pinned_at  INTEGER NOT NULL,
    PRIMARY KEY (channel_id, message_id)
) STRICT, WITHOUT ROWID;
