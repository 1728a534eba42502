-- Orders to delete for good, and what became of them: the only hard deletions, and their audit trail. The row says how
-- far the work has come, so that another node can go on with it.
CREATE TABLE purge (
    id           UUID   NOT NULL PRIMARY KEY,
    -- 0: the messages of a channel. 1: a user and their messages. 2: a user, whose messages stay without a name.
    kind         INTEGER NOT NULL,
    target_id    UUID   NOT NULL,
    -- Only messages that were written before; 0: all.
    before       BIGINT NOT NULL,
    -- What stands in place of the user from then on.
    alias_id     UUID   NOT NULL,
    requested_by TEXT   NOT NULL,
    requested_at BIGINT NOT NULL,
    step         INTEGER NOT NULL,
    channel_id   UUID   NOT NULL,
    after_seq    BIGINT NOT NULL,
    purged       BIGINT NOT NULL,
    finished_at  BIGINT
);
CREATE UNIQUE INDEX purge_open ON purge (target_id) WHERE finished_at IS NULL;
-- What a user leaves behind with the messages of others.
CREATE INDEX message_reaction_user ON message_reaction (user_id, message_id);
CREATE INDEX message_poll_vote_voter ON message_poll_vote (voter_id);
