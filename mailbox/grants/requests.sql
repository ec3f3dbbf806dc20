-- What the service does with the answers that it keeps.
GRANT SELECT, INSERT ON public.requests TO :"role";
GRANT EXECUTE ON FUNCTION public.requests_keep(double precision) TO :"role";
