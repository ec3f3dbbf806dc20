-- A request whose answer went with its day would be executed once more if that day were made anew, empty, or if
-- its id went to the default partition: as when answers are kept for longer from some moment on, or by another
-- replica. So the database remembers up to where it has forgotten, and refuses what lies before, whoever asks.

-- The id below which all is forgotten, as it stands in the CHECK of the default partition, where ids go that have
-- no day; NULL where nothing is.
CREATE FUNCTION public.requests_forgotten() RETURNS uuid
LANGUAGE sql STABLE
RETURN (
    SELECT substring(pg_get_constraintdef(oid) FROM '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')::uuid
    FROM pg_constraint
    WHERE conrelid = 'public.requests_default'::regclass AND conname = 'requests_forgotten');

-- Forgets what lies before `day`, and returns whether any of it was remembered.
CREATE FUNCTION public.requests_forget_before(day date) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    IF public.requests_forgotten() >= public.requests_floor(day) THEN
        RETURN false;
    END IF;
    ALTER TABLE public.requests_default DROP CONSTRAINT IF EXISTS requests_forgotten;
    -- NOT VALID: what stands there already is deleted afterwards.
    EXECUTE format('ALTER TABLE public.requests_default ADD CONSTRAINT requests_forgotten CHECK '
        '(request_id >= %L) NOT VALID', public.requests_floor(day));
    RETURN true;
END $$;

-- Makes the days from `first` to `last` that are missing and not forgotten. With none to make, forgets the oldest
-- day before `first`; with none of those, what else lies there. Returns how many days it made or forgot; 0 when
-- all is as it should be. A day of which the default partition holds rows is left to it.
--
-- One day at a time: dropping it locks the parent, so that everybody waits, for as long as the transaction lasts.
-- It gives up after lock_timeout rather than queue them behind itself for longer than they notice.
CREATE OR REPLACE FUNCTION public.requests_maintain(first date, last date) RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '200ms'
SET client_min_messages = 'warning'
AS $$
DECLARE
    forgotten uuid;
    child_name name;
    day date;
    made integer := 0;
BEGIN
    -- Replicas start at the same moment; the second finds the first one's partitions.
    PERFORM pg_advisory_xact_lock(hashtextextended('requests_maintain', 0));
    forgotten := public.requests_forgotten();
    FOR day IN SELECT first + i FROM generate_series(0, last - first) AS i LOOP
        child_name := 'requests_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN public.requests_floor(day) < forgotten OR to_regclass('public.' || child_name) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE public.%I (LIKE public.requests INCLUDING ALL)', child_name);
            EXECUTE format('ALTER TABLE public.requests ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                child_name, public.requests_floor(day), public.requests_floor(day + 1));
            made := made + 1;
        EXCEPTION WHEN check_violation THEN
            RAISE WARNING 'the default partition of requests holds rows of % already; they stay there', day;
        END;
    END LOOP;
    IF made > 0 THEN
        RETURN made;
    END IF;

    SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') INTO child_name, day
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.requests'::regclass AND c.relname ~ '^requests_[0-9]{8}$'
    ORDER BY c.relname LIMIT 1;
    IF day < first THEN
        -- Before the CHECK: who records an answer locks the parent before the default partition, too.
        EXECUTE format('DROP TABLE public.%I', child_name);
        PERFORM public.requests_forget_before(day + 1);
        RETURN 1;
    END IF;
    IF public.requests_forget_before(first) THEN
        RETURN 1;
    END IF;
    -- They came when their days had no partition, and nobody can add to them any more.
    DELETE FROM public.requests_default WHERE request_id < public.requests_floor(first);
    RETURN 0;
END $$;

-- Which days were dropped so far nobody has written down: all before the oldest that there is may have been.
SELECT public.requests_forget_before(min(to_date(right(c.relname, 8), 'YYYYMMDD')))
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'public.requests'::regclass AND c.relname ~ '^requests_[0-9]{8}$';
