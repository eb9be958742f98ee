#!/bin/bash
# The contract of the official image's entry point, as far as it is documented: POSTGRES_USER, POSTGRES_PASSWORD (required), POSTGRES_DB,
# POSTGRES_INITDB_ARGS, scripts in /docker-entrypoint-initdb.d, and the arguments of the container go to postgres.
set -euo pipefail

if [ "${1:-}" != postgres ]; then
    exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chown postgres:postgres "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth-host=scram-sha-256 --auth-local=trust \
        --no-sync ${POSTGRES_INITDB_ARGS:-} >/dev/null
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    printf "listen_addresses = '*'\n" >>"$PGDATA/postgresql.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start >/dev/null
    if [ "$database" != postgres ]; then
        psql -q -U "$user" -d postgres -v "name=$database" <<<'CREATE DATABASE :"name";'
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sql) psql -q -v ON_ERROR_STOP=1 -U "$user" -d "$database" -f "$script" ;;
            *.sh) bash "$script" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -w -m fast stop >/dev/null
fi
exec "$@"
