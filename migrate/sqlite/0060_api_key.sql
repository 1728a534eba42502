-- Keys with which back ends call imks. The secret of a key is not kept, only its hash: 32 bytes of SHA-256.
CREATE TABLE api_key (
    id           BLOB    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL,
    scopes       TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT, WITHOUT ROWID;
-- A name is free again when its key is revoked.
CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoked_at IS NULL;

-- Calls of back ends that change something, so that a repeat changes nothing and gets the first answer. Without an
-- answer the call still runs, or its node has died.
CREATE TABLE control_request (
    caller_id  BLOB    NOT NULL,
    request_id TEXT    NOT NULL,
    hash       BLOB    NOT NULL,
    answer     BLOB,
    at         INTEGER NOT NULL,
    PRIMARY KEY (caller_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX control_request_at ON control_request (at);
