#!/usr/bin/env bash
# The first process of a server's container: makes the server at its first start, then becomes it.
#
# A primary is given APP_PASSWORD, REPLICATION_PASSWORD and the names of its REPLICAS;
# a replica REPLICATION_PASSWORD, the host name of its PRIMARY and its own name, SLOT.
set -euo pipefail

server=/var/lib/postgresql/data/server
# Renamed when it is whole, so that a first start that was cut short is begun anew.
draft=/var/lib/postgresql/data/draft

make_primary() {
    initdb --username postgres --auth-local peer --auth-host scram-sha-256 --encoding UTF8 --locale C --pgdata "$draft"
    echo "include '/etc/pgweir/postgresql.conf'" >> "$draft/postgresql.conf"
    cat >> "$draft/pg_hba.conf" <<'HBA'
host all         app        samenet scram-sha-256
host replication replicator samenet scram-sha-256
HBA
    pg_ctl --pgdata "$draft" --wait --options "-c listen_addresses=''" start
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname postgres <<'SQL'
\getenv app_password APP_PASSWORD
\getenv replication_password REPLICATION_PASSWORD
\getenv replicas REPLICAS
CREATE ROLE app LOGIN PASSWORD :'app_password';
-- For the lag in bytes.
GRANT pg_monitor TO app;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
CREATE DATABASE shop OWNER app;
SELECT pg_create_physical_replication_slot(name, true) FROM string_to_table(:'replicas', ' ') AS name;
SQL
    pg_ctl --pgdata "$draft" --wait --mode fast stop
}

make_replica() {
    PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup --host "$PRIMARY" --username replicator --no-password \
        --pgdata "$draft" --checkpoint fast --wal-method stream --slot "$SLOT" --write-recovery-conf
}

if [ ! -d "$server" ]; then
    rm -rf "$draft"
    if [ -n "${PRIMARY:-}" ]; then make_replica; else make_primary; fi
    sync
    mv "$draft" "$server"
fi
exec postgres -D "$server" -c cluster_name="$(hostname)"
