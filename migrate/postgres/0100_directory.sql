-- The embedded directory: the core of a standalone server. With an external core these tables stay empty.
CREATE TABLE directory_user (
    id         UUID    NOT NULL PRIMARY KEY,
    username   TEXT    NOT NULL,
    bot        BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT  NOT NULL,
    deleted_at BIGINT
);
-- A name is free again when its user is gone.
CREATE UNIQUE INDEX directory_user_username ON directory_user (username) WHERE deleted_at IS NULL;

CREATE TABLE directory_channel (
    id             UUID    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    kind           BIGINT  NOT NULL,
    archived       BOOLEAN NOT NULL DEFAULT FALSE,
    read_only      BOOLEAN NOT NULL DEFAULT FALSE,
    slow_mode_s    BIGINT  NOT NULL DEFAULT 0,
    retention_days BIGINT  NOT NULL DEFAULT 0,
    version        BIGINT  NOT NULL DEFAULT 1,
    created_at     BIGINT  NOT NULL
);
CREATE UNIQUE INDEX directory_channel_name ON directory_channel (name);

-- What a member may do, as the bit set of core/v1/permission.proto.
CREATE TABLE directory_role (
    id   UUID   NOT NULL PRIMARY KEY,
    name TEXT   NOT NULL UNIQUE,
    bits BIGINT NOT NULL
);
INSERT INTO directory_role (id, name, bits) VALUES
    ('00000000-0000-7000-8000-000000000001', 'guest', 5),
    ('00000000-0000-7000-8000-000000000002', 'member', 511),
    ('00000000-0000-7000-8000-000000000003', 'moderator', 4095),
    ('00000000-0000-7000-8000-000000000004', 'owner', 8191);

CREATE TABLE directory_member (
    channel_id   UUID   NOT NULL,
    user_id      UUID   NOT NULL,
    role_id      UUID   NOT NULL,
    joined_at    BIGINT NOT NULL,
    notify_level BIGINT NOT NULL DEFAULT 1,
    muted_until  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (channel_id, user_id)
);
CREATE INDEX directory_member_user ON directory_member (user_id, channel_id);

CREATE TABLE directory_signing_key (
    kid         TEXT   NOT NULL PRIMARY KEY,
    private_key BYTEA  NOT NULL,
    public_key  BYTEA  NOT NULL,
    created_at  BIGINT NOT NULL,
    not_after   BIGINT
);

-- Tokens of this user or session, issued up to then, are void.
CREATE TABLE directory_revocation (
    subject_id UUID    NOT NULL PRIMARY KEY,
    is_session BOOLEAN NOT NULL,
    revoked_at BIGINT  NOT NULL
);

-- What happened, in the order of the commits: the row lock on the counter sees to it. The watch streams read this.
CREATE TABLE directory_counter (
    id    BIGINT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO directory_counter (id, value) VALUES (1, 0);

CREATE TABLE directory_change (
    seq        BIGINT NOT NULL PRIMARY KEY,
    kind       BIGINT NOT NULL,
    user_id    UUID,
    channel_id UUID,
    session_id UUID,
    changed_at BIGINT NOT NULL
);
