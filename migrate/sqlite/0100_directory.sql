-- The embedded directory: the core of a standalone server. With an external core these tables stay empty.
CREATE TABLE directory_user (
    id         BLOB    NOT NULL PRIMARY KEY,
    username   TEXT    NOT NULL,
    bot        INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
-- A name is free again when its user is gone.
CREATE UNIQUE INDEX directory_user_username ON directory_user (username) WHERE deleted_at IS NULL;

CREATE TABLE directory_channel (
    id             BLOB    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    kind           INTEGER NOT NULL,
    archived       INTEGER NOT NULL DEFAULT 0,
    read_only      INTEGER NOT NULL DEFAULT 0,
    slow_mode_s    INTEGER NOT NULL DEFAULT 0,
    retention_days INTEGER NOT NULL DEFAULT 0,
    version        INTEGER NOT NULL DEFAULT 1,
    created_at     INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX directory_channel_name ON directory_channel (name);

-- What a member may do, as the bit set of core/v1/permission.proto.
CREATE TABLE directory_role (
    id   BLOB   NOT NULL PRIMARY KEY,
    name TEXT   NOT NULL UNIQUE,
    bits INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO directory_role (id, name, bits) VALUES
    (x'00000000000070008000000000000001', 'guest', 5),
    (x'00000000000070008000000000000002', 'member', 511),
    (x'00000000000070008000000000000003', 'moderator', 4095),
    (x'00000000000070008000000000000004', 'owner', 8191);

CREATE TABLE directory_member (
    channel_id   BLOB   NOT NULL,
    user_id      BLOB   NOT NULL,
    role_id      BLOB   NOT NULL,
    joined_at    INTEGER NOT NULL,
    notify_level INTEGER NOT NULL DEFAULT 1,
    muted_until  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (channel_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX directory_member_user ON directory_member (user_id, channel_id);

CREATE TABLE directory_signing_key (
    kid         TEXT   NOT NULL PRIMARY KEY,
    private_key BLOB   NOT NULL,
    public_key  BLOB   NOT NULL,
    created_at  INTEGER NOT NULL,
    not_after   INTEGER
) STRICT;

-- Tokens of this user or session, issued up to then, are void.
CREATE TABLE directory_revocation (
    subject_id BLOB    NOT NULL PRIMARY KEY,
    is_session INTEGER NOT NULL,
    revoked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened, in the order of the commits: the row lock on the counter sees to it. The watch streams read this.
CREATE TABLE directory_counter (
    id    INTEGER NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO directory_counter (id, value) VALUES (1, 0);

CREATE TABLE directory_change (
    seq        INTEGER NOT NULL PRIMARY KEY,
    kind       INTEGER NOT NULL,
    user_id    BLOB,
    channel_id BLOB,
    session_id BLOB,
    changed_at INTEGER NOT NULL
) STRICT;
