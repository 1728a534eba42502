-- The index of search (docs/adr/0037): for each message the numbers of its words, of its channel, its author and of what
-- it has. Each database finds them with what it brings along; rows follow the messages within a moment.
CREATE TABLE message_search (
    message_id UUID   NOT NULL PRIMARY KEY,
    terms      INT4[] NOT NULL
);
CREATE INDEX message_search_terms ON message_search USING gin (terms);

-- How far the index follows a channel.
CREATE TABLE message_search_state (
    channel_id UUID   NOT NULL PRIMARY KEY,
    seq        BIGINT NOT NULL DEFAULT 0,
    rev        BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
