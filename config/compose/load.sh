#!/usr/bin/env bash
# Puts the shop's rows on both shards; what is there stays. The ranges are those of pgweir.toml.
set -euo pipefail

for shard in "0 1 10000" "1 10001 20000"; do
    read -r number first last <<< "$shard"
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set first="$first" --set last="$last" \
        --host "shard$number-primary" --username app --no-password --file /etc/pgweir/shop.sql shop
done
