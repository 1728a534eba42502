-- Messages that members have reported, with the text at that moment: the author may delete it before a moderator looks.
CREATE TABLE message_report (
    id          BLOB    NOT NULL PRIMARY KEY,
    channel_id  BLOB    NOT NULL,
    message_id  BLOB    NOT NULL,
    author_id   BLOB    NOT NULL,
    reporter_id BLOB    NOT NULL,
    reason      TEXT    NOT NULL,
    note        TEXT,
    body        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX message_report_once ON message_report (message_id, reporter_id);
CREATE INDEX message_report_channel ON message_report (channel_id, id);
