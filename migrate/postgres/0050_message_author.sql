-- The newest message that each author sent in each channel in person: who writes in a channel has read it, and slow
-- mode counts from there. One small row for each author and channel, rewritten by each send, in place of an index of
-- all messages (docs/adr/0029). Messages that a program sent in the author's name (flag 16) do not count.
CREATE TABLE message_author (
    author_id  UUID   NOT NULL,
    channel_id UUID   NOT NULL,
    last_seq   BIGINT NOT NULL,
    last_cseq  BIGINT NOT NULL,
    last_at    BIGINT NOT NULL,
    PRIMARY KEY (author_id, channel_id)
) WITH (fillfactor = 50);
INSERT INTO message_author (author_id, channel_id, last_seq, last_cseq, last_at)
    SELECT DISTINCT ON (channel_id, author_id) author_id, channel_id, seq, cseq, created_at FROM message
    WHERE (flags & 16) = 0 ORDER BY channel_id, author_id, seq DESC;
DROP INDEX message_own;
