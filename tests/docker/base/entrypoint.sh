#!/bin/bash
# The entry point of the stand-in: the official image's variables and its initialisation folder, nothing more.
set -euo pipefail

: "${PGDATA:=/var/lib/postgresql/data}" "${POSTGRES_USER:=postgres}"
: "${POSTGRES_DB:=$POSTGRES_USER}"

if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown postgres "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

run_script() {
    case $1 in
    *.sh) . "$1" ;;
    *.sql) psql -X -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$1" ;;
    esac
}

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=<(printf '%s' "${POSTGRES_PASSWORD:?}") \
        --auth scram-sha-256 --auth-local trust > /dev/null
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
    # The server of the initialisation gets the command's own settings, but listens on no network.
    pg_ctl -D "$PGDATA" -w -o "$(printf '%q ' "${@:2}") -c listen_addresses=''" start > /dev/null
    [ "$POSTGRES_DB" = postgres ] || psql -X -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
    for script in /docker-entrypoint-initdb.d/*; do run_script "$script"; done
    pg_ctl -D "$PGDATA" -w -m fast stop > /dev/null
fi

exec "$@"
