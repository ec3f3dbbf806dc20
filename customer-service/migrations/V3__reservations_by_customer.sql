-- One customer's reservations, a page at a time. Apart from V2: making it keeps writers out while the table is
-- read, and would keep readers out too. Of a large table it is made beforehand (deploy/README.md, Upgrade).
CREATE INDEX IF NOT EXISTS reservations_by_customer ON reservations (customer_id, order_id);
