-- Takes back what a role has been granted here before, so that what follows is all that it has. In one transaction
-- with that, run by the tables' owner; :"role" is the role, quoted as a name, and :'role' as a text.

-- Not beside who makes or drops partitions: both write to the same rows of the catalogue.
SELECT pg_advisory_xact_lock(hashtextextended('mailbox_ensure_partitions', 0));
SELECT pg_advisory_xact_lock(hashtextextended('requests_maintain', 0));
SELECT set_config('mailbox.role', :'role', true);

DO $$
DECLARE
    role oid := quote_ident(current_setting('mailbox.role'))::regrole;
    granted text;
BEGIN
    FOR granted IN
        SELECT DISTINCT format('TABLE %s', c.oid::regclass) FROM pg_class c, aclexplode(c.relacl) AS one
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND one.grantee = role AND c.relowner <> role
        UNION ALL
        SELECT DISTINCT format('FUNCTION %s', p.oid::regprocedure) FROM pg_proc p, aclexplode(p.proacl) AS one
        WHERE p.pronamespace = 'public'::regnamespace AND one.grantee = role AND p.proowner <> role
        UNION ALL
        SELECT DISTINCT format('%s', 'TABLE ' || a.attrelid::regclass)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) AS one
        WHERE c.relnamespace = 'public'::regnamespace AND one.grantee = role AND c.relowner <> role
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', granted, role::regrole);
    END LOOP;
    EXECUTE format('REVOKE ALL ON SCHEMA public FROM %s', role::regrole);
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM %s', current_database(), role::regrole);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %s', current_database(), role::regrole);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %s', role::regrole);
END $$;
