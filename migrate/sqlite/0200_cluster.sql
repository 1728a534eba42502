-- The nodes of the cluster: a row per running server, renewed every few seconds.
CREATE TABLE cluster_node (
    node    TEXT    NOT NULL PRIMARY KEY,
    name    TEXT    NOT NULL,
    adapter TEXT    NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Messages between nodes; empty, because one SQLite file belongs to one node.
CREATE TABLE cluster_message (
    sender  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    channel TEXT    NOT NULL,
    message BLOB    NOT NULL,
    sent_at INTEGER NOT NULL,
    PRIMARY KEY (sender, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX cluster_message_sent ON cluster_message (sent_at);
