#!/bin/sh
# As the `postgres` image does: POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB make the cluster once, then it is served.
set -eu
bin=/opt/postgres/bin
user=${POSTGRES_USER:-postgres}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s\n' "${POSTGRES_PASSWORD:?is not set}" >/tmp/password
    "$bin/initdb" -D "$PGDATA" --username "$user" --pwfile /tmp/password --auth-local trust --auth-host scram-sha-256 \
        --encoding UTF8 --locale C --no-instructions
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE \"${POSTGRES_DB:-$user}\"" | "$bin/postgres" --single -D "$PGDATA" postgres
fi
[ "$1" != postgres ] || shift
exec "$bin/postgres" -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
