-- Messages that are sent later. due_at is when somebody has to do something: the time to send, or the end of the lease
-- of the node that is sending; null once it is settled. A message is stored as sent in the transaction that appends
-- it, so it is sent once however many nodes try. Settled rows stay for two weeks for the author's devices.
CREATE TABLE message_scheduled (
    id         BLOB    NOT NULL PRIMARY KEY,
    user_id    BLOB    NOT NULL,
    channel_id BLOB    NOT NULL,
    nonce      TEXT,
    payload    TEXT    NOT NULL,
    send_at    INTEGER NOT NULL,
    due_at     INTEGER,
    state      INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    error      TEXT,
    message_id BLOB,
    version    INTEGER NOT NULL DEFAULT 1,
    user_rev   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    settled_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX message_scheduled_rev ON message_scheduled (user_id, user_rev);
CREATE INDEX message_scheduled_due ON message_scheduled (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX message_scheduled_settled ON message_scheduled (settled_at) WHERE settled_at IS NOT NULL;
CREATE UNIQUE INDEX message_scheduled_nonce ON message_scheduled (user_id, nonce) WHERE nonce IS NOT NULL;
