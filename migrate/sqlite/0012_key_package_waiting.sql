-- The packages that wait to be handed out, of each device in the order in which they are.
CREATE INDEX key_package_waiting ON key_package (user_id, device_id, last_resort, created_at, id)
    WHERE claimed_at IS NULL;
