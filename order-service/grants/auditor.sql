GRANT SELECT ON public.orders TO :"role";
