-- Key packages of devices, for groups that encrypt end to end: each is handed out once. One that was handed out stays for
-- a day, so that publishing it again changes nothing. The package of last resort is handed out when no other is left.
CREATE TABLE key_package (
    user_id     BLOB    NOT NULL,
    device_id   TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    package     TEXT    NOT NULL,
    last_resort INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    claimed_at  INTEGER,
    PRIMARY KEY (user_id, device_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX key_package_claimed ON key_package (claimed_at) WHERE claimed_at IS NOT NULL;
