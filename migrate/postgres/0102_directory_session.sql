-- Sessions with refresh tokens. A token is stored as a hash, and stays known after its use, so that a second use is
-- noticed.
CREATE TABLE directory_session (
    id         UUID   NOT NULL PRIMARY KEY,
    user_id    UUID   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX directory_session_user ON directory_session (user_id);
CREATE INDEX directory_session_end ON directory_session (expires_at);

CREATE TABLE directory_refresh_token (
    hash       TEXT   NOT NULL PRIMARY KEY,
    session_id UUID   NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX directory_refresh_token_session ON directory_refresh_token (session_id);
CREATE INDEX directory_refresh_token_used ON directory_refresh_token (used_at) WHERE used_at IS NOT NULL;

-- A key that leaked: its signatures are void at once.
ALTER TABLE directory_signing_key ADD COLUMN revoked BOOLEAN NOT NULL DEFAULT FALSE;
