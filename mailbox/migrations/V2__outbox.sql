-- Events to publish. The column names are those of Debezium's outbox event router.

CREATE TABLE public.outbox (
    id            uuid  NOT NULL,
    aggregatetype text  NOT NULL,
    aggregateid   text  NOT NULL,
    type          text  NOT NULL,
    payload       bytea NOT NULL,
    headers       jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

COMMENT ON TABLE public.outbox IS
    'Events, written in the transaction that caused them; published by the relay in commit order.';

CREATE TABLE public.outbox_default PARTITION OF public.outbox DEFAULT;

-- Before the first row, so that the first day does not end up in the default partition.
SELECT public.mailbox_ensure_partitions('public.outbox', (now() AT TIME ZONE 'UTC')::date, 7);
