-- The newest version of each membership that a back end has told, so that a call that arrives late is ignored.
CREATE TABLE membership_version (
    user_id    BLOB    NOT NULL,
    channel_id BLOB    NOT NULL,
    version    INTEGER NOT NULL,
    is_member  INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (user_id, channel_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_version_at ON membership_version (at);

-- Users and sessions whose tokens a back end has withdrawn: those that were issued up to `void_until`.
CREATE TABLE revocation (
    subject_id BLOB    NOT NULL PRIMARY KEY,
    is_session INTEGER NOT NULL,
    void_until INTEGER NOT NULL,
    at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX revocation_at ON revocation (at, subject_id);

-- What a channel allows beside what its core says, as long as the core has the channel in this version.
CREATE TABLE channel_policy (
    channel_id     BLOB    NOT NULL PRIMARY KEY,
    core_version   INTEGER NOT NULL,
    slow_mode_s    INTEGER,
    read_only      INTEGER,
    archived       INTEGER,
    retention_days INTEGER
) STRICT, WITHOUT ROWID;
