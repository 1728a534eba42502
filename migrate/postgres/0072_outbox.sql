-- Messages that other programs want to send, written in their own transactions; the servers append them.
CREATE TABLE outbox_message (
    number      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          UUID    NOT NULL,
    channel_id  UUID    NOT NULL,
    author_id   UUID    NOT NULL,
    author_name TEXT    NOT NULL,
    type        INTEGER NOT NULL,
    body        TEXT    NOT NULL,
    nonce       TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    ack_requested BOOLEAN NOT NULL,
    failed_at   BIGINT,
    reason      TEXT
);
CREATE UNIQUE INDEX outbox_message_nonce ON outbox_message (channel_id, author_id, nonce) WHERE failed_at IS NULL;
CREATE INDEX outbox_message_failed ON outbox_message (failed_at) WHERE failed_at IS NOT NULL;

-- `imks.publish`: the function for other programs (docs/publish.md). Its schema is `imks`, or that of the tables if they
-- are not in `public`.
DO $migration$
DECLARE
    tables TEXT := current_schema();
    api    TEXT := CASE WHEN tables = 'public' THEN 'imks' ELSE tables END;
BEGIN
    IF to_regnamespace(quote_ident(api)) IS NULL THEN
        IF NOT has_database_privilege(current_database(), 'CREATE') THEN
            RAISE EXCEPTION 'the role % may not create the schema imks: GRANT CREATE ON DATABASE % TO %, or create '
                'the schema with this role as its owner', current_user, current_database(), current_user;
        END IF;
        EXECUTE format('CREATE SCHEMA %I', api);
    END IF;
    IF api <> tables AND to_regclass(format('%I._sqlx_migrations', api)) IS NULL THEN
        -- For a role that is called imks, this schema comes first. A server of an earlier version, started again by
        -- mistake, must find the migrations here and refuse to start, rather than create all tables a second time.
        EXECUTE format('CREATE VIEW %I._sqlx_migrations AS SELECT * FROM %I._sqlx_migrations', api, tables);
    END IF;
    EXECUTE format($create$
        CREATE FUNCTION %1$I.publish(
            channel         UUID,
            body            TEXT,
            author          UUID,
            author_name     TEXT,
            idempotency_key TEXT DEFAULT NULL,
            kind            TEXT DEFAULT 'bot',
            priority        TEXT DEFAULT 'normal',
            ack_requested   BOOLEAN DEFAULT FALSE
        ) RETURNS UUID LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = %2$I, pg_temp AS $publish$
        DECLARE
            entry UUID := gen_random_uuid();
            key   TEXT := COALESCE(idempotency_key, entry::TEXT);
            level INTEGER := CASE priority WHEN 'normal' THEN 0 WHEN 'important' THEN 1 WHEN 'urgent' THEN 2 END;
            same  RECORD;
        BEGIN
            IF channel IS NULL OR body IS NULL OR author IS NULL OR author_name IS NULL OR kind IS NULL
                OR priority IS NULL OR ack_requested IS NULL THEN
                RAISE null_value_not_allowed USING MESSAGE = 'only idempotency_key may be null';
            END IF;
            IF body !~ '\S' THEN
                RAISE invalid_parameter_value USING MESSAGE = 'body is empty';
            END IF;
            IF char_length(body) > 8000 OR octet_length(body) > 32768 THEN
                RAISE string_data_right_truncation USING MESSAGE = 'body is longer than 8000 characters or 32768 bytes';
            END IF;
            IF author_name !~ '\S' OR char_length(author_name) > 64 THEN
                RAISE invalid_parameter_value USING MESSAGE = 'author_name must have 1 to 64 characters';
            END IF;
            IF char_length(key) NOT BETWEEN 1 AND 64 OR key ~ '[[:cntrl:]]' THEN
                RAISE invalid_parameter_value
                    USING MESSAGE = 'idempotency_key must have 1 to 64 characters, none of them a control character';
            END IF;
            IF kind NOT IN ('bot', 'webhook') THEN
                RAISE invalid_parameter_value USING MESSAGE = 'kind must be bot or webhook';
            END IF;
            IF level IS NULL THEN
                RAISE invalid_parameter_value USING MESSAGE = 'priority must be normal, important or urgent';
            END IF;
            -- Only the embedded directory is in this database; a core of its own is asked by nobody here.
            IF EXISTS (SELECT FROM directory_channel)
                AND NOT EXISTS (SELECT FROM directory_channel c WHERE c.id = channel AND NOT c.archived) THEN
                RAISE foreign_key_violation USING MESSAGE = 'no such channel, or it is archived';
            END IF;
            INSERT INTO outbox_message
                (id, channel_id, author_id, author_name, type, body, nonce, priority, ack_requested)
                VALUES (entry, channel, author, author_name, CASE kind WHEN 'bot' THEN 3 ELSE 4 END, body, key,
                    level, ack_requested)
                ON CONFLICT (channel_id, author_id, nonce) WHERE failed_at IS NULL DO NOTHING;
            IF NOT FOUND THEN
                SELECT o.id, o.body, o.priority, o.ack_requested INTO same FROM outbox_message o
                    WHERE o.channel_id = channel AND o.author_id = author AND o.nonce = key AND o.failed_at IS NULL;
                IF (same.body, same.priority, same.ack_requested) IS DISTINCT FROM (body, level, ack_requested) THEN
                    RAISE unique_violation USING MESSAGE = 'idempotency_key was used with another message';
                END IF;
                RETURN same.id;
            END IF;
            PERFORM pg_notify('imks_outbox', '');
            RETURN entry;
        END
        $publish$
    $create$, api, tables);
    EXECUTE format('REVOKE ALL ON FUNCTION %I.publish(UUID, TEXT, UUID, TEXT, TEXT, TEXT, TEXT, BOOLEAN) FROM PUBLIC', api);
END
$migration$;
