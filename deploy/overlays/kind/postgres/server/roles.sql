-- Run once in the new database, as the superuser: the four roles that use it. The owner migrates, and grants the
-- others what they need when the service starts; nobody is a member of anybody. The service runs as a role that
-- makes no tables and only adds events, the relay may replicate and reads the outbox, the auditor reads.
\set ON_ERROR_STOP on
\getenv owner OWNER_USER
\getenv owner_password OWNER_PASSWORD
\getenv service SERVICE_USER
\getenv service_password SERVICE_PASSWORD
\getenv relay RELAY_USER
\getenv relay_password RELAY_PASSWORD
\getenv auditor AUDITOR_USER
\getenv auditor_password AUDITOR_PASSWORD
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"service" LOGIN PASSWORD :'service_password';
CREATE ROLE :"relay" LOGIN REPLICATION PASSWORD :'relay_password';
CREATE ROLE :"auditor" LOGIN PASSWORD :'auditor_password';
ALTER ROLE :"auditor" SET default_transaction_read_only = on;
ALTER DATABASE :"DBNAME" OWNER TO :"owner";
-- What everybody may otherwise: connect, make temporary tables, and before Postgres 15 make tables.
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
-- The owner grants this too; before it has, the relay waits already.
GRANT CONNECT ON DATABASE :"DBNAME" TO :"service", :"relay", :"auditor";
