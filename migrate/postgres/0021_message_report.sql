-- Messages that members have reported, with the text at that moment: the author may delete it before a moderator looks.
CREATE TABLE message_report (
    id          UUID   NOT NULL PRIMARY KEY,
    channel_id  UUID   NOT NULL,
    message_id  UUID   NOT NULL,
    author_id   UUID   NOT NULL,
    reporter_id UUID   NOT NULL,
    reason      TEXT   NOT NULL,
    note        TEXT,
    body        TEXT   NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE UNIQUE INDEX message_report_once ON message_report (message_id, reporter_id);
CREATE INDEX message_report_channel ON message_report (channel_id, id);
