-- Range partitions by UUIDv7, one a day (UTC), for tables whose key begins with an event's id.

-- The least UUID of the millisecond of `at`: every UUIDv7 drawn at or after it is greater.
CREATE FUNCTION public.mailbox_uuidv7_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- Makes sure that `parent` has a partition for each of `days` days from `from_day` on, and returns how
-- many it created. Rows of other days go to the default partition, so no insert ever fails.
--
-- Built beside the table and then attached, because that lets inserts go on; CREATE … PARTITION OF
-- would lock the parent against them. It gives up after lock_timeout rather than queue everybody
-- behind itself.
--
-- A day of which the default partition holds rows already is left to the default partition: moving
-- them would be seen by the replication slot as new rows, and publish them twice.
CREATE FUNCTION public.mailbox_ensure_partitions(parent regclass, from_day date, days integer) RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET client_min_messages = 'warning'
AS $$
DECLARE
    parent_schema name;
    parent_name name;
    child_name name;
    day date;
    created integer := 0;
BEGIN
    -- Replicas start at the same moment; the second finds the first one's partitions.
    PERFORM pg_advisory_xact_lock(hashtextextended('mailbox_ensure_partitions', 0));
    SELECT n.nspname, c.relname INTO STRICT parent_schema, parent_name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = parent;

    FOR day IN SELECT from_day + i FROM generate_series(0, days - 1) AS i LOOP
        child_name := parent_name || to_char(day, '"_"YYYYMMDD');
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_class c WHERE c.relname = child_name
            AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = parent_schema));
        BEGIN
            EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL)', parent_schema, child_name, parent);
            EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                parent, parent_schema, child_name,
                public.mailbox_uuidv7_floor(day::timestamp AT TIME ZONE 'UTC'),
                public.mailbox_uuidv7_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
            created := created + 1;
        EXCEPTION WHEN check_violation THEN
            RAISE WARNING 'the default partition of % holds rows of % already; they and the rest of that day stay there',
                parent, day;
        END;
    END LOOP;
    RETURN created;
END $$;
