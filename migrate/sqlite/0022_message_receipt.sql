-- Who has read a message, for channels that are too large to tell it to everybody. Positions change, their users do not.
CREATE INDEX message_read_state_channel ON message_read_state (channel_id, user_id);
