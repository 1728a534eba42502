-- The newest version of each membership that a back end has told, so that a call that arrives late is ignored.
CREATE TABLE membership_version (
    user_id    UUID    NOT NULL,
    channel_id UUID    NOT NULL,
    version    BIGINT  NOT NULL,
    is_member  BOOLEAN NOT NULL,
    at         BIGINT  NOT NULL,
    PRIMARY KEY (user_id, channel_id)
);
CREATE INDEX membership_version_at ON membership_version (at);

-- Users and sessions whose tokens a back end has withdrawn: those that were issued up to `void_until`.
CREATE TABLE revocation (
    subject_id UUID    NOT NULL PRIMARY KEY,
    is_session BOOLEAN NOT NULL,
    void_until BIGINT  NOT NULL,
    at         BIGINT  NOT NULL
);
CREATE INDEX revocation_at ON revocation (at, subject_id);

-- What a channel allows beside what its core says, as long as the core has the channel in this version.
CREATE TABLE channel_policy (
    channel_id     UUID    NOT NULL PRIMARY KEY,
    core_version   BIGINT  NOT NULL,
    slow_mode_s    BIGINT,
    read_only      BOOLEAN,
    archived       BOOLEAN,
    retention_days BIGINT
);
