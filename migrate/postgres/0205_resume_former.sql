-- What a session was before it was continued: its client may be cut off again before it hears of that, and then says what it said
-- before (docs/adr/0066).
ALTER TABLE resume_session ADD COLUMN former BYTEA;
