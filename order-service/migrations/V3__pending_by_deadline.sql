-- What the sweeper looks for (I8): as large as the number of pending orders, however many are settled.
-- Apart from V2: making it keeps writers out while the table is read, and would keep readers out too.
CREATE INDEX orders_pending_by_deadline ON orders (deadline) WHERE state = 'pending';
