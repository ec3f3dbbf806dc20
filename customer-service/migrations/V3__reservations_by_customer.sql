-- One customer's reservations, a page at a time. Apart from V2: making it keeps writers out while the table is
-- read, and would keep readers out too.
CREATE INDEX reservations_by_customer ON reservations (customer_id, order_id);
