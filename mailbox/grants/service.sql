-- What the service does with the mailbox as it runs. Events it only adds: it cannot read, change or take back any.
GRANT INSERT ON public.outbox TO :"role";
GRANT SELECT, INSERT ON public.inbox TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON public.inbox_marks TO :"role";
GRANT EXECUTE ON FUNCTION
    public.mailbox_prepare_days(integer),
    public.inbox_forget(double precision, double precision),
    public.inbox_forget_strays(date, double precision)
TO :"role";
