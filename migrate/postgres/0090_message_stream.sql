-- Messages whose text arrives piece by piece (docs/adr/0050). NULL: complete when sent. 0: more may come. 1: finished,
-- 2: aborted, 3: interrupted.
ALTER TABLE message ADD COLUMN stream INTEGER;
-- What the row of such a message lacks while more may come: the end of its text. Small, and never changed in an index.
CREATE TABLE message_stream (
    message_id UUID   NOT NULL PRIMARY KEY,
    channel_id UUID   NOT NULL,
    tail       TEXT   NOT NULL,
    folded_at  BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX message_stream_channel ON message_stream (channel_id);
