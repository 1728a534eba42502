-- The newest message that each author sent in each channel in person: who writes in a channel has read it, and slow
-- mode counts from there. One small row for each author and channel, rewritten by each send, in place of an index of
-- all messages (docs/adr/0029). Messages that a program sent in the author's name (flag 16) do not count.
CREATE TABLE message_author (
    author_id  BLOB    NOT NULL,
    channel_id BLOB    NOT NULL,
    last_seq   INTEGER NOT NULL,
    last_cseq  INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    PRIMARY KEY (author_id, channel_id)
) STRICT, WITHOUT ROWID;
-- Columns beside MAX() are those of the row with the maximum.
INSERT INTO message_author (author_id, channel_id, last_seq, last_cseq, last_at)
    SELECT author_id, channel_id, MAX(seq), cseq, created_at FROM message
    WHERE flags & 16 = 0 GROUP BY channel_id, author_id;
DROP INDEX message_own;
-- One message per nonce. The author comes first: the nonces of one author's last messages, in whatever channels, then
-- stand on one page. A day later the nonce is taken off the old message when somebody uses it again.
DROP INDEX message_nonce;
CREATE UNIQUE INDEX message_nonce ON message (author_id, nonce, channel_id) WHERE nonce IS NOT NULL;
