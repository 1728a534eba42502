-- What sessions need to continue on any node (docs/adr/0066). Unlogged: nothing that was acknowledged rests on it. After a
-- crash of the server it is empty, and clients get new sessions.
CREATE UNLOGGED TABLE resume_node (
    -- The journal of a node: a random number.
    epoch    BIGINT NOT NULL PRIMARY KEY,
    -- Deliveries up to this number are known by the last one of each channel.
    folded   BIGINT NOT NULL,
    alive_at BIGINT NOT NULL
);
CREATE UNLOGGED TABLE resume_part (
    epoch      BIGINT NOT NULL,
    n          BIGINT NOT NULL,
    upto       BIGINT NOT NULL,
    deliveries BYTEA  NOT NULL,
    written_at BIGINT NOT NULL,
    PRIMARY KEY (epoch, n)
);
CREATE UNLOGGED TABLE resume_last (
    epoch      BIGINT NOT NULL,
    channel_id UUID   NOT NULL,
    began      BIGINT NOT NULL,
    ended      BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    rev        BIGINT NOT NULL,
    PRIMARY KEY (epoch, channel_id)
);
CREATE UNLOGGED TABLE resume_session (
    -- A hash of the private id.
    key        BYTEA  NOT NULL PRIMARY KEY,
    user_id    UUID   NOT NULL,
    generation BIGINT NOT NULL,
    epoch      BIGINT NOT NULL,
    began      BIGINT NOT NULL,
    user_rev   BIGINT NOT NULL,
    channels   BYTEA  NOT NULL,
    -- The session that its token belongs to.
    token_session UUID,
    -- Null while the client is connected.
    away_at    BIGINT
);
CREATE INDEX resume_session_user ON resume_session (user_id);
CREATE INDEX resume_session_token ON resume_session (token_session) WHERE token_session IS NOT NULL;
CREATE INDEX resume_session_epoch ON resume_session (epoch);
CREATE INDEX resume_session_away ON resume_session (away_at) WHERE away_at IS NOT NULL;
