-- Reservations are listed with the time of their release. The version before, whose replicas run on beside this
-- one, does not note it.
ALTER TABLE reservations ADD COLUMN release_time timestamptz;
