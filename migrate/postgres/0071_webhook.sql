-- Who does what only one node may do, and until when, by the clock of the database.
CREATE TABLE lease (
    name       TEXT   NOT NULL PRIMARY KEY,
    holder     TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);

-- The receivers of webhooks, by a hash of their address, and the next event of the feed that each gets.
CREATE TABLE webhook_endpoint (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    next_batch  BIGINT NOT NULL,
    next_index  BIGINT NOT NULL,
    disabled_at BIGINT
);

-- Events that a receiver did not take.
CREATE TABLE webhook_dead (
    endpoint_id TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    died_at     BIGINT  NOT NULL,
    retry       BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (endpoint_id, id)
);
CREATE INDEX webhook_dead_age ON webhook_dead (endpoint_id, died_at);
