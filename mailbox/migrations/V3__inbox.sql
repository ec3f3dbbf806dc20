-- Events applied, by consumer. A row commits with the event's effects.

CREATE TABLE public.inbox (
    event_id   uuid        NOT NULL,
    consumer   text        NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, consumer)
) PARTITION BY RANGE (event_id);

COMMENT ON TABLE public.inbox IS
    'One row for each event that a consumer has applied; a repeat finds its row and is not applied.';

CREATE TABLE public.inbox_default PARTITION OF public.inbox DEFAULT;

SELECT public.mailbox_ensure_partitions('public.inbox', (now() AT TIME ZONE 'UTC')::date, 7);
