-- Who reacted to what with what. The totals that are shown stand in message.reactions, written in the same transaction.
CREATE TABLE message_reaction (
    message_id UUID   NOT NULL,
    emoji      TEXT   COLLATE "C" NOT NULL,
    user_id    UUID   NOT NULL,
    channel_id UUID   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (message_id, emoji, user_id)
);
