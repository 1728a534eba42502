-- Who reacted to what with what. The totals that are shown stand in message.reactions, written in the same transaction.
CREATE TABLE message_reaction (
    message_id BLOB    NOT NULL,
    emoji      TEXT    NOT NULL,
    user_id    BLOB    NOT NULL,
    channel_id BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (message_id, emoji, user_id)
) STRICT, WITHOUT ROWID;
