-- A service runs, and a relay reads, as roles that make and drop no tables: their owner does, through these
-- functions. Each does one thing within bounds, whoever calls it, finds nothing by a caller's search_path, and is
-- for those alone to whom it is granted (grants/).

-- Makes sure that outbox and inbox have a partition for each of `days` days from today (UTC) on; returns how many
-- were made.
CREATE FUNCTION public.mailbox_prepare_days(days integer) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    IF days IS NULL OR days NOT BETWEEN 1 AND 60 THEN
        RAISE EXCEPTION 'partitions are made for 1 to 60 days, not %', days
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN public.mailbox_ensure_partitions('public.outbox'::regclass, today, days)
        + public.mailbox_ensure_partitions('public.inbox'::regclass, today, days);
END $$;

-- Drops the oldest day of the inbox if all of it was claimed more than `kept` seconds ago, and it lies before the
-- day of `oldest` (seconds since 1970), if that is given. Returns the day, or NULL when none was dropped.
CREATE FUNCTION public.inbox_forget(kept double precision, oldest double precision) RETURNS date
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cutoff timestamptz := now() - kept * interval '1 second';
BEGIN
    IF kept IS NULL OR kept < 86400 THEN
        RAISE EXCEPTION 'the inbox is kept for 86400 seconds at least, not %', kept
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN public.inbox_retire(
        least((cutoff AT TIME ZONE 'UTC')::date, (to_timestamp(oldest) AT TIME ZONE 'UTC')::date), cutoff);
END $$;

-- Deletes the rows of days up to `day`, which was dropped, that came when those had no partition.
CREATE FUNCTION public.inbox_forget_strays(day date, kept double precision) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    IF kept IS NULL OR kept < 86400 THEN
        RAISE EXCEPTION 'the inbox is kept for 86400 seconds at least, not %', kept
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM public.inbox_default
    WHERE event_id < public.mailbox_uuidv7_floor((day + 1)::timestamp AT TIME ZONE 'UTC')
    AND substr(event_id::text, 15, 1) = '7' AND claimed_at < now() - kept * interval '1 second';
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- For the relay (CDC_RETENTION_FUNCTION): keeps writers out of a day of the outbox that is over, to the end of the
-- transaction; then, when all that it holds is published, drops it.
CREATE FUNCTION public.outbox_retire(part regclass, is_published boolean) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
DECLARE
    child_name name;
BEGIN
    SELECT c.relname INTO child_name
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.outbox'::regclass AND c.oid = part AND c.relname ~ '^outbox_[0-9]{8}$'
    AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date;
    IF child_name IS NULL THEN
        RAISE EXCEPTION '% is no day of the outbox that is over', part
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF is_published THEN
        -- Not beside who makes partitions.
        PERFORM pg_advisory_xact_lock(hashtextextended('mailbox_ensure_partitions', 0));
        EXECUTE format('DROP TABLE public.%I', child_name);
    ELSE
        EXECUTE format('LOCK TABLE public.%I IN SHARE MODE', child_name);
    END IF;
END $$;

REVOKE EXECUTE ON FUNCTION
    public.mailbox_prepare_days(integer),
    public.inbox_forget(double precision, double precision),
    public.inbox_forget_strays(date, double precision),
    public.outbox_retire(regclass, boolean)
FROM PUBLIC;
