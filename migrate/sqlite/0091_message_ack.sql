-- How much a message matters: 0 normal, 1 important, 2 urgent. Who has acknowledged it, if it asks for that (docs/adr/0051): their
-- number, NULL where it does not.
ALTER TABLE message ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN acks INTEGER;
CREATE TABLE message_ack (
    message_id BLOB    NOT NULL,
    user_id    BLOB    NOT NULL,
    acked_at   INTEGER NOT NULL,
    PRIMARY KEY (message_id, user_id)
) STRICT, WITHOUT ROWID;
-- What a user leaves behind with the messages of others.
CREATE INDEX message_ack_user ON message_ack (user_id);
