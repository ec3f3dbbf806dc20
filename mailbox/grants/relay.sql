-- What the relay does: it reads the outbox, compares it with the stream in a temporary table, and removes what is
-- old and published (CDC_RETENTION_SECONDS): days by the owner's function, and single rows of the default partition,
-- where those are whose day had no partition. REPLICATION is an attribute of the role, not a grant.
GRANT SELECT ON public.outbox TO :"role";
GRANT SELECT, DELETE ON public.outbox_default TO :"role";
GRANT EXECUTE ON FUNCTION public.outbox_retire(regclass, boolean) TO :"role";

DO $$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), current_setting('mailbox.role'));
    -- Only the table's owner may publish it; the name is the relay's default (CDC_PUBLICATION).
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'cdc_relay') THEN
        CREATE PUBLICATION cdc_relay FOR TABLE public.outbox
            WITH (publish = 'insert', publish_via_partition_root = true);
    END IF;
END $$;
