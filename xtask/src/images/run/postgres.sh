# What the image of Postgres does by its entry point, in short: a new cluster with the superuser's password, the
# database, and the scripts of /docker-entrypoint-initdb.d as the superuser, while it listens to nobody. Then the server,
# with the arguments of the manifest.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata="$PGDATA" --username=postgres --pwfile=/tmp/password --auth-local=trust \
        --auth-host=scram-sha-256 --encoding=UTF8 --locale=C > /dev/null
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait --silent --pgdata="$PGDATA" --log=/tmp/first.log -o "-c listen_addresses=" start
    psql --username=postgres --no-psqlrc --quiet --command="CREATE DATABASE \"$POSTGRES_DB\""
    for script in /docker-entrypoint-initdb.d/*.sql; do
        psql --username=postgres --dbname="$POSTGRES_DB" --no-psqlrc --quiet \
            --set=ON_ERROR_STOP=1 --file="$script"
    done
    pg_ctl --wait --silent --pgdata="$PGDATA" stop
fi
# A key that others could read is refused, and mounted secrets can be read.
if [ -n "${TLS_FILES:-}" ]; then
    install -m 0600 "$TLS_FILES/tls.key" "$TLS_FILES/tls.crt" "$PGDATA/"
    set -- "$@" -c ssl=on -c ssl_cert_file=tls.crt -c ssl_key_file=tls.key
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' "$@"
