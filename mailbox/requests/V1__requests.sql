-- Requests that were granted, and what was answered, so that a repeat is answered alike. Partitions by day
-- (UTC) of the id, a UUIDv7 that the client drew. Apart from the outbox's migrations: these run before
-- them, so that no table is being made when a relay finds the outbox.

CREATE TABLE public.requests (
    request_id uuid  NOT NULL,
    operation  text  NOT NULL,
    body_hash  bytea NOT NULL, -- SHA-256 of the request without its id
    answer     bytea NOT NULL,
    PRIMARY KEY (request_id)
) PARTITION BY RANGE (request_id);

CREATE TABLE public.requests_default PARTITION OF public.requests DEFAULT;

-- The least UUIDv7 of a day.
CREATE FUNCTION public.requests_floor(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex((extract(epoch FROM day::timestamp AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0')
    || repeat('0', 20))::uuid;

-- Drops the partitions of days before `first`, makes those from `first` to `last` that are missing, and
-- returns how many it made and dropped. A day of which the default partition holds rows is left to it.
CREATE FUNCTION public.requests_maintain(first date, last date) RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET client_min_messages = 'warning'
AS $$
DECLARE
    child_name name;
    day date;
    changed integer := 0;
BEGIN
    -- Replicas start at the same moment; the second finds the first one's partitions.
    PERFORM pg_advisory_xact_lock(hashtextextended('requests_maintain', 0));
    FOR child_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.requests'::regclass
        AND c.relname ~ '^requests_[0-9]{8}$' AND c.relname < 'requests_' || to_char(first, 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE public.%I', child_name);
        changed := changed + 1;
    END LOOP;
    FOR day IN SELECT first + i FROM generate_series(0, last - first) AS i LOOP
        child_name := 'requests_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('public.' || child_name) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE public.%I (LIKE public.requests INCLUDING ALL)', child_name);
            EXECUTE format('ALTER TABLE public.requests ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                child_name, public.requests_floor(day), public.requests_floor(day + 1));
            changed := changed + 1;
        EXCEPTION WHEN check_violation THEN
            RAISE WARNING 'the default partition of requests holds rows of % already; they stay there', day;
        END;
    END LOOP;
    RETURN changed;
END $$;

SELECT public.requests_maintain(
    (now() AT TIME ZONE 'UTC')::date - 8, (now() AT TIME ZONE 'UTC')::date + 7);
