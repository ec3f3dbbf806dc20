-- A service runs as a role that makes and drops no tables: its owner does, through this function, within bounds.

-- Keeps partitions of the requests of the last `seconds`, and of the days to come; returns how many it made and
-- dropped. A day more than asked for: the database's clock is not the one that judged the id.
CREATE FUNCTION public.requests_keep(seconds double precision) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- What the service lets itself be told, and no more.
    IF seconds IS NULL OR seconds NOT BETWEEN 3600 AND 7776000 THEN
        RAISE EXCEPTION 'requests are kept for 3600 to 7776000 seconds, not %', seconds
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN public.requests_maintain(
        ((now() - seconds * interval '1 second') AT TIME ZONE 'UTC')::date - 1,
        (now() AT TIME ZONE 'UTC')::date + 7);
END $$;

REVOKE EXECUTE ON FUNCTION public.requests_keep(double precision) FROM PUBLIC;
