-- The pinned messages of a channel. When a message is pinned it also shows in message.pinned_at.
CREATE TABLE message_pin (
    channel_id UUID NOT NULL,
    message_id UUID NOT NULL,
    pinned_by  UUID NOT NULL,
    pinned_at  BIGINT NOT NULL,
    PRIMARY KEY (channel_id, message_id)
);
