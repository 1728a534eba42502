-- Keys with which back ends call imks. The secret of a key is not kept, only its hash: 32 bytes of SHA-256.
CREATE TABLE api_key (
    id           UUID    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    hash         BYTEA   NOT NULL,
    scopes       TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT,
    revoked_at   BIGINT
);
-- A name is free again when its key is revoked.
CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoked_at IS NULL;

-- Calls of back ends that change something, so that a repeat changes nothing and gets the first answer. Without an
-- answer the call still runs, or its node has died.
CREATE TABLE control_request (
    caller_id  UUID    NOT NULL,
    request_id TEXT    NOT NULL,
    hash       BYTEA   NOT NULL,
    answer     BYTEA,
    at         BIGINT  NOT NULL,
    PRIMARY KEY (caller_id, request_id)
);
CREATE INDEX control_request_at ON control_request (at);
