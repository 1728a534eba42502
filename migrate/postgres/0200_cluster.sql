-- The nodes of the cluster: a row per running server, renewed every few seconds.
CREATE TABLE cluster_node (
    node    TEXT   NOT NULL PRIMARY KEY,
    name    TEXT   NOT NULL,
    adapter TEXT   NOT NULL,
    seen_at BIGINT NOT NULL
);

-- Messages between nodes, where PostgreSQL is the bus. Numbered by their sender, so that a late commit cannot hide one.
-- Unlogged: the bus may lose messages, and what must arrive is recovered from the other tables.
CREATE UNLOGGED TABLE cluster_message (
    sender  TEXT   NOT NULL,
    number  BIGINT NOT NULL,
    channel TEXT   NOT NULL,
    message BYTEA  NOT NULL,
    sent_at BIGINT NOT NULL,
    PRIMARY KEY (sender, number)
);
CREATE INDEX cluster_message_sent ON cluster_message (sent_at);
