-- What an auditor compares with the stream: which events there are, not what they say.
GRANT SELECT (id) ON public.outbox TO :"role";
