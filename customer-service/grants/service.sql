-- What the service does with its own tables as it runs. No customer and no reservation is ever deleted.
GRANT SELECT, INSERT, UPDATE ON public.customers, public.reservations TO :"role";
