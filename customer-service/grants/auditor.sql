GRANT SELECT ON public.customers, public.reservations TO :"role";
