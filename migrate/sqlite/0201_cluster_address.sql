-- How other nodes reach a node; empty, because one SQLite file belongs to one node.
ALTER TABLE cluster_node ADD COLUMN address     TEXT;
ALTER TABLE cluster_node ADD COLUMN secret      BLOB;
ALTER TABLE cluster_node ADD COLUMN certificate BLOB;
