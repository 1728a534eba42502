-- The recovery log that nodes share; empty, because one SQLite file belongs to one node.
CREATE TABLE recovery_bucket (
    bucket TEXT    NOT NULL PRIMARY KEY,
    epoch  INTEGER NOT NULL,
    last   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_entry (
    bucket     TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    node       TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    entry      BLOB    NOT NULL,
    written_at INTEGER NOT NULL,
    PRIMARY KEY (bucket, position),
    UNIQUE (bucket, node, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_session (
    bucket     TEXT    NOT NULL,
    key        BLOB    NOT NULL,
    generation INTEGER NOT NULL,
    node       TEXT    NOT NULL,
    record     BLOB    NOT NULL,
    saved_at   INTEGER NOT NULL,
    away_at    INTEGER,
    taken_at   INTEGER,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_lease (
    bucket   TEXT    NOT NULL,
    node     TEXT    NOT NULL,
    position INTEGER NOT NULL,
    seen_at  INTEGER NOT NULL,
    PRIMARY KEY (bucket, node)
) STRICT, WITHOUT ROWID;
