-- Incoming webhooks of channels: addresses under which programs post. The secret part is stored as a hash.
CREATE TABLE directory_webhook (
    id         BLOB NOT NULL PRIMARY KEY,
    channel_id BLOB NOT NULL,
    name       TEXT NOT NULL,
    avatar     TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX directory_webhook_channel ON directory_webhook (channel_id);

-- Custom emoji of workspaces: pictures for `:name:`.
CREATE TABLE directory_emoji (
    id           BLOB NOT NULL PRIMARY KEY,
    workspace_id BLOB NOT NULL,
    name         TEXT NOT NULL,
    image_url    TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    UNIQUE (workspace_id, name)
) STRICT, WITHOUT ROWID;
