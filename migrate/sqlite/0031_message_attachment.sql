-- Files of messages, whose bytes are in an object store or a directory. A message shows its attachments and embeds from its
-- own row; these rows are for uploads, quotas and removal. Without a message: not sent yet. With deleted_at: the bytes
-- are still to be removed.
CREATE TABLE message_attachment (
    id           BLOB    NOT NULL PRIMARY KEY,
    channel_id   BLOB    NOT NULL,
    uploader_id  BLOB    NOT NULL,
    message_id   BLOB,
    filename     TEXT    NOT NULL,
    mime         TEXT    NOT NULL,
    size_bytes   INTEGER NOT NULL,
    sha256       TEXT,
    width        INTEGER,
    height       INTEGER,
    created_at   INTEGER NOT NULL,
    completed_at INTEGER,
    deleted_at   INTEGER
) STRICT;
CREATE INDEX message_attachment_message ON message_attachment (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX message_attachment_uploader ON message_attachment (uploader_id, size_bytes, message_id)
    WHERE deleted_at IS NULL;
CREATE INDEX message_attachment_unused ON message_attachment (created_at)
    WHERE message_id IS NULL AND deleted_at IS NULL;
CREATE INDEX message_attachment_deleted ON message_attachment (deleted_at) WHERE deleted_at IS NOT NULL;

ALTER TABLE message ADD COLUMN attachments TEXT;
ALTER TABLE message ADD COLUMN embeds TEXT;
