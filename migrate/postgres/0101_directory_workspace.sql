-- Workspaces, several roles per member, overrides of channels, and bans.
CREATE TABLE directory_workspace (
    id         UUID   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);
INSERT INTO directory_workspace (id, name, created_at) VALUES ('00000000-0000-7000-8000-000000000010', 'main', 0);

CREATE TABLE directory_workspace_member (
    workspace_id UUID   NOT NULL,
    user_id      UUID   NOT NULL,
    joined_at    BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, user_id)
);
CREATE INDEX directory_workspace_member_user ON directory_workspace_member (user_id, workspace_id);

-- A direct conversation belongs to no workspace; its name is for people and need not be unique.
ALTER TABLE directory_channel ADD COLUMN workspace_id UUID;
UPDATE directory_channel SET workspace_id = '00000000-0000-7000-8000-000000000010';
DROP INDEX directory_channel_name;
CREATE UNIQUE INDEX directory_channel_name ON directory_channel (workspace_id, name);

-- A role without a workspace is one of those that every workspace has.
ALTER TABLE directory_role DROP CONSTRAINT directory_role_name_key;
ALTER TABLE directory_role ADD COLUMN workspace_id UUID;
CREATE UNIQUE INDEX directory_role_everywhere ON directory_role (name) WHERE workspace_id IS NULL;
CREATE UNIQUE INDEX directory_role_name ON directory_role (workspace_id, name);

-- The roles of a member in a place: a channel, or a whole workspace.
CREATE TABLE directory_member_role (
    user_id  UUID NOT NULL,
    place_id UUID NOT NULL,
    role_id  UUID NOT NULL,
    PRIMARY KEY (user_id, place_id, role_id)
);
CREATE INDEX directory_member_role_place ON directory_member_role (place_id, user_id);
CREATE INDEX directory_member_role_role ON directory_member_role (role_id, user_id);
INSERT INTO directory_member_role (user_id, place_id, role_id)
    SELECT user_id, channel_id, role_id FROM directory_member;
ALTER TABLE directory_member DROP COLUMN role_id;
ALTER TABLE directory_member ADD COLUMN joined_seq BIGINT;

-- What a role or a user may do in one channel beyond their roles, or not.
CREATE TABLE directory_override (
    channel_id UUID    NOT NULL,
    subject_id UUID    NOT NULL,
    is_role    BOOLEAN NOT NULL,
    allow_bits BIGINT  NOT NULL,
    deny_bits  BIGINT  NOT NULL,
    PRIMARY KEY (channel_id, subject_id)
);
CREATE INDEX directory_override_subject ON directory_override (subject_id);

-- Who may not be a member of a place, until then or until it is lifted.
CREATE TABLE directory_ban (
    place_id  UUID   NOT NULL,
    user_id   UUID   NOT NULL,
    reason    TEXT   NOT NULL,
    banned_at BIGINT NOT NULL,
    ends_at   BIGINT,
    PRIMARY KEY (place_id, user_id)
);
