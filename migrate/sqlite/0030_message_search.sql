-- The index of search (docs/adr/0037): for each message the numbers of its words, of its channel, its author and of what
-- it has. Each database finds them with what it brings along; rows follow the messages within a moment. A place is
-- the number of a message in the index, in the order of time.
CREATE TABLE message_search (
    place      INTEGER NOT NULL PRIMARY KEY,
    message_id BLOB    NOT NULL UNIQUE
) STRICT;
CREATE VIRTUAL TABLE message_search_terms USING fts5 (
    terms, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);

-- How far the index follows a channel.
CREATE TABLE message_search_state (
    channel_id BLOB    NOT NULL PRIMARY KEY,
    seq        INTEGER NOT NULL DEFAULT 0,
    rev        INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
