-- An attachment of a scheduled message that is not sent yet is kept as long as that takes. With removed_at: its bytes were
-- removed, and are removed again when nothing can be uploaded under its address any more. Until then it counts.
ALTER TABLE message_attachment ADD COLUMN scheduled_id BLOB;
ALTER TABLE message_attachment ADD COLUMN removed_at INTEGER;
DROP INDEX message_attachment_unused;
CREATE INDEX message_attachment_unused ON message_attachment (created_at)
    WHERE message_id IS NULL AND scheduled_id IS NULL AND deleted_at IS NULL;
CREATE INDEX message_attachment_scheduled ON message_attachment (scheduled_id) WHERE scheduled_id IS NOT NULL;
DROP INDEX message_attachment_uploader;
CREATE INDEX message_attachment_uploader ON message_attachment
    (uploader_id, size_bytes, message_id, scheduled_id, deleted_at);
