-- What tells a late attempt to write from a new one, and a session that changed from the one that was found.
-- Leases are positions of an epoch, like everything else.
ALTER TABLE recovery_session ADD COLUMN IF NOT EXISTS version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE recovery_lease ADD COLUMN IF NOT EXISTS serial BIGINT NOT NULL DEFAULT 0;
ALTER TABLE recovery_lease ADD COLUMN IF NOT EXISTS epoch BIGINT NOT NULL DEFAULT 0;
