-- How other nodes reach a node: its address, the secret with which they sign what they pass on to it (new with each
-- start), and the hash of its certificate. A node that takes nothing from others has none of them.
ALTER TABLE cluster_node ADD COLUMN address     TEXT;
ALTER TABLE cluster_node ADD COLUMN secret      BYTEA;
ALTER TABLE cluster_node ADD COLUMN certificate BYTEA;
