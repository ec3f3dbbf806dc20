-- Attempts to apply an event alone that have begun and not ended: what is left of a process that an event
-- has killed. Written only for events that have been delivered several times.

CREATE TABLE public.inbox_marks (
    consumer   text        NOT NULL,
    stream     text        NOT NULL,
    sequence   bigint      NOT NULL,
    stored_at  bigint      NOT NULL, -- nanoseconds since 1970: with the sequence, one message for ever
    begun      integer     NOT NULL, -- attempts, since the last that ended
    last_begun timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, stream, sequence, stored_at)
);

COMMENT ON TABLE public.inbox_marks IS
    'One row for each event that is being applied alone, or whose last attempt took its process down.';
