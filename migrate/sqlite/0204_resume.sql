-- What sessions need to continue, also after a restart (docs/adr/0066).
CREATE TABLE resume_node (
    -- The journal of a process: a random number.
    epoch    INTEGER NOT NULL PRIMARY KEY,
    -- Deliveries up to this number are known by the last one of each channel.
    folded   INTEGER NOT NULL,
    alive_at INTEGER NOT NULL
) STRICT;
CREATE TABLE resume_part (
    epoch      INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    upto       INTEGER NOT NULL,
    deliveries BLOB    NOT NULL,
    written_at INTEGER NOT NULL,
    PRIMARY KEY (epoch, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE resume_last (
    epoch      INTEGER NOT NULL,
    channel_id BLOB    NOT NULL,
    began      INTEGER NOT NULL,
    ended      INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    rev        INTEGER NOT NULL,
    PRIMARY KEY (epoch, channel_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE resume_session (
    -- A hash of the private id.
    key        BLOB    NOT NULL PRIMARY KEY,
    user_id    BLOB    NOT NULL,
    generation INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    began      INTEGER NOT NULL,
    user_rev   INTEGER NOT NULL,
    channels   BLOB    NOT NULL,
    -- The session that its token belongs to.
    token_session BLOB,
    -- Null while the client is connected.
    away_at    INTEGER
) STRICT;
CREATE INDEX resume_session_user ON resume_session (user_id);
CREATE INDEX resume_session_token ON resume_session (token_session) WHERE token_session IS NOT NULL;
CREATE INDEX resume_session_epoch ON resume_session (epoch);
CREATE INDEX resume_session_away ON resume_session (away_at) WHERE away_at IS NOT NULL;
