-- Run once by the image, in the new database, as its superuser. The service owns the database and migrates it;
-- the relay may replicate, and is a member of the owner: it makes the publication, and drops old partitions.
\set ON_ERROR_STOP on
\getenv app_user APP_USER
\getenv app_password APP_PASSWORD
\getenv relay_user RELAY_USER
\getenv relay_password RELAY_PASSWORD
CREATE ROLE :"app_user" LOGIN PASSWORD :'app_password';
ALTER DATABASE :"DBNAME" OWNER TO :"app_user";
CREATE ROLE :"relay_user" LOGIN REPLICATION PASSWORD :'relay_password' IN ROLE :"app_user";
