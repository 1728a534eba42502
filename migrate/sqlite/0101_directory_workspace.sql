-- Workspaces, several roles per member, overrides of channels, and bans.
CREATE TABLE directory_workspace (
    id         BLOB    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO directory_workspace (id, name, created_at) VALUES (x'00000000000070008000000000000010', 'main', 0);

CREATE TABLE directory_workspace_member (
    workspace_id BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    joined_at    INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX directory_workspace_member_user ON directory_workspace_member (user_id, workspace_id);

-- A direct conversation belongs to no workspace; its name is for people and need not be unique.
ALTER TABLE directory_channel ADD COLUMN workspace_id BLOB;
UPDATE directory_channel SET workspace_id = x'00000000000070008000000000000010';
DROP INDEX directory_channel_name;
CREATE UNIQUE INDEX directory_channel_name ON directory_channel (workspace_id, name);

-- A role without a workspace is one of those that every workspace has.
CREATE TABLE directory_role_new (
    id           BLOB    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    bits         INTEGER NOT NULL,
    workspace_id BLOB
) STRICT, WITHOUT ROWID;
INSERT INTO directory_role_new (id, name, bits) SELECT id, name, bits FROM directory_role;
DROP TABLE directory_role;
ALTER TABLE directory_role_new RENAME TO directory_role;
CREATE UNIQUE INDEX directory_role_everywhere ON directory_role (name) WHERE workspace_id IS NULL;
CREATE UNIQUE INDEX directory_role_name ON directory_role (workspace_id, name);

-- The roles of a member in a place: a channel, or a whole workspace.
CREATE TABLE directory_member_role (
    user_id  BLOB NOT NULL,
    place_id BLOB NOT NULL,
    role_id  BLOB NOT NULL,
    PRIMARY KEY (user_id, place_id, role_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX directory_member_role_place ON directory_member_role (place_id, user_id);
CREATE INDEX directory_member_role_role ON directory_member_role (role_id, user_id);
INSERT INTO directory_member_role (user_id, place_id, role_id)
    SELECT user_id, channel_id, role_id FROM directory_member;
ALTER TABLE directory_member DROP COLUMN role_id;
ALTER TABLE directory_member ADD COLUMN joined_seq INTEGER;

-- What a role or a user may do in one channel beyond their roles, or not.
CREATE TABLE directory_override (
    channel_id BLOB    NOT NULL,
    subject_id BLOB    NOT NULL,
    is_role    INTEGER NOT NULL,
    allow_bits INTEGER NOT NULL,
    deny_bits  INTEGER NOT NULL,
    PRIMARY KEY (channel_id, subject_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX directory_override_subject ON directory_override (subject_id);

-- Who may not be a member of a place, until then or until it is lifted.
CREATE TABLE directory_ban (
    place_id  BLOB    NOT NULL,
    user_id   BLOB    NOT NULL,
    reason    TEXT    NOT NULL,
    banned_at INTEGER NOT NULL,
    ends_at   INTEGER,
    PRIMARY KEY (place_id, user_id)
) STRICT, WITHOUT ROWID;
