-- Claims that nothing can come back for any more go by the day, by dropping a partition.

-- Drops the oldest day of the inbox if it lies before `before` and nothing in it was claimed at `cutoff` or
-- later. Returns the day, or NULL when there is none to drop.
--
-- From then on an event of that day, or of one before it, is refused: nobody can tell any more whether it was
-- applied. One day at a time, so that the parent is locked for a moment only; it gives up after lock_timeout
-- rather than queue everybody behind itself.
CREATE FUNCTION public.inbox_retire(before date, cutoff timestamptz) RETURNS date
LANGUAGE plpgsql
SET lock_timeout = '200ms'
SET client_min_messages = 'warning'
AS $$
DECLARE
    child_name name;
    day date;
    young boolean;
BEGIN
    -- Replicas, and who makes partitions.
    PERFORM pg_advisory_xact_lock(hashtextextended('mailbox_ensure_partitions', 0));
    SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') INTO child_name, day
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.inbox'::regclass AND c.relname ~ '^inbox_[0-9]{8}$'
    ORDER BY c.relname LIMIT 1;
    IF child_name IS NULL OR day >= before THEN
        RETURN NULL;
    END IF;
    -- Nobody claims into that day between the look and the drop.
    EXECUTE format('LOCK TABLE public.%I IN SHARE MODE', child_name);
    EXECUTE format('SELECT EXISTS (SELECT FROM public.%I WHERE claimed_at >= $1)', child_name)
        INTO young USING cutoff;
    IF young THEN
        RETURN NULL;
    END IF;
    EXECUTE format('DROP TABLE public.%I', child_name);
    ALTER TABLE public.inbox_default DROP CONSTRAINT IF EXISTS inbox_forgotten;
    -- NOT VALID: what stands there already stays. Ids that are no UUIDv7 tell no time.
    EXECUTE format('ALTER TABLE public.inbox_default ADD CONSTRAINT inbox_forgotten CHECK '
        '(event_id >= %L OR substr(event_id::text, 15, 1) <> ''7'') NOT VALID',
        public.mailbox_uuidv7_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
    RETURN day;
END $$;
