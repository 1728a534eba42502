-- What tells a late attempt to write from a new one, and a session that changed from the one that was found; empty too.
ALTER TABLE recovery_session ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recovery_lease ADD COLUMN serial INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recovery_lease ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
