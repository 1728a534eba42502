-- The recovery log that nodes share: the last events of namespaces, and the sessions of their clients. Unlogged: nothing
-- that was acknowledged rests on it, and after a crash of the server it is empty, with another epoch. Applications on the
-- Socket.IO library have these tables alone.
CREATE UNLOGGED TABLE IF NOT EXISTS recovery_bucket (
    bucket TEXT   NOT NULL PRIMARY KEY,
    epoch  BIGINT NOT NULL,
    last   BIGINT NOT NULL
);
CREATE UNLOGGED TABLE IF NOT EXISTS recovery_entry (
    bucket     TEXT    NOT NULL,
    position   BIGINT  NOT NULL,
    node       TEXT    NOT NULL,
    number     BIGINT  NOT NULL,
    bytes      INTEGER NOT NULL,
    entry      BYTEA   NOT NULL,
    written_at BIGINT  NOT NULL,
    PRIMARY KEY (bucket, position),
    -- A batch that is written again is there once, also if the first attempt comes last.
    UNIQUE (bucket, node, number)
);
CREATE UNLOGGED TABLE IF NOT EXISTS recovery_session (
    bucket     TEXT   NOT NULL,
    -- A hash of the private id.
    key        BYTEA  NOT NULL,
    generation BIGINT NOT NULL,
    node       TEXT   NOT NULL,
    record     BYTEA  NOT NULL,
    saved_at   BIGINT NOT NULL,
    away_at    BIGINT,
    taken_at   BIGINT,
    PRIMARY KEY (bucket, key)
);
CREATE UNLOGGED TABLE IF NOT EXISTS recovery_lease (
    bucket   TEXT   NOT NULL,
    node     TEXT   NOT NULL,
    position BIGINT NOT NULL,
    seen_at  BIGINT NOT NULL,
    PRIMARY KEY (bucket, node)
);
