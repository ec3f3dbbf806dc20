-- What the service does with its own table as it runs. No order is ever deleted.
GRANT SELECT, INSERT, UPDATE ON public.orders TO :"role";
