-- What somebody has chosen to show (0 what the devices say, 1 idle, 2 do not disturb, 3 invisible), and until when.
CREATE TABLE user_presence (
    user_id    BLOB    NOT NULL PRIMARY KEY,
    choice     INTEGER NOT NULL,
    until      INTEGER,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
