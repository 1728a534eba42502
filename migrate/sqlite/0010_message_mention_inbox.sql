-- The messages that mention somebody, or everybody in a channel, by their age.
CREATE INDEX message_mention_inbox ON message_mention (target_id, message_id);
