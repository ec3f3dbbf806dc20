-- Customers, and the credit that their orders hold. Written by customer-service alone.
CREATE TABLE customers (
    customer_id              uuid        PRIMARY KEY, -- UUIDv7: orders by time of creation
    name                     text        NOT NULL,
    currency                 text        NOT NULL,
    credit_limit_minor_units bigint      NOT NULL,
    reserved_minor_units     bigint      NOT NULL DEFAULT 0, -- sum of the active reservations
    create_time              timestamptz NOT NULL,

    CONSTRAINT customers_name_length CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT customers_name_not_blank CHECK (btrim(name) <> ''),
    CONSTRAINT customers_currency_iso4217_form CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT customers_limit_not_negative CHECK (credit_limit_minor_units >= 0),
    CONSTRAINT customers_reserved_not_negative CHECK (reserved_minor_units >= 0),
    -- I7: whatever the code does, credit is not reserved twice over.
    CONSTRAINT customers_reserved_within_limit
        CHECK (reserved_minor_units <= credit_limit_minor_units)
);

-- What was answered to each order: one row an order, so that it is asked for once (I6).
CREATE TABLE reservations (
    order_id           uuid        PRIMARY KEY, -- of another service
    customer_id        uuid        NOT NULL,    -- no reference: an order may name an unknown customer
    amount_minor_units bigint      NOT NULL,
    currency           text        NOT NULL,
    state              text        NOT NULL,
    reason             text,
    create_time        timestamptz NOT NULL,

    CONSTRAINT reservations_amount_positive CHECK (amount_minor_units > 0),
    CONSTRAINT reservations_currency_iso4217_form CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT reservations_state_known CHECK (state IN ('active', 'refused', 'released')),
    CONSTRAINT reservations_reason_known CHECK (
        reason IN ('credit_limit_exceeded', 'customer_not_found', 'currency_mismatch')
    ),
    CONSTRAINT reservations_reason_iff_refused CHECK (
        (state = 'refused') = (reason IS NOT NULL)
    )
);
