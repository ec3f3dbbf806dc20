-- Orders, and where each stands. Written by order-service alone.
CREATE TABLE orders (
    order_id            uuid        PRIMARY KEY, -- UUIDv7: orders by time of creation
    customer_id         uuid        NOT NULL,    -- of another service: nothing here to refer to
    total_minor_units   bigint      NOT NULL,
    currency            text        NOT NULL,
    state               text        NOT NULL,
    cancellation_reason text,
    create_time         timestamptz NOT NULL,
    update_time         timestamptz NOT NULL,

    CONSTRAINT orders_total_positive CHECK (total_minor_units > 0),
    CONSTRAINT orders_currency_iso4217_form CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT orders_state_known CHECK (state IN ('pending', 'approved', 'cancelled')),
    CONSTRAINT orders_reason_known CHECK (
        cancellation_reason IN ('credit_limit_exceeded', 'unknown_customer', 'currency_mismatch')
    ),
    CONSTRAINT orders_reason_iff_cancelled CHECK (
        (state = 'cancelled') = (cancellation_reason IS NOT NULL)
    ),
    CONSTRAINT orders_update_not_before_create CHECK (update_time >= create_time)
);

-- One customer's orders, the oldest first, a page at a time.
CREATE INDEX orders_by_customer ON orders (customer_id, order_id);
