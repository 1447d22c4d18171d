#!/bin/bash
# usage: start-node.sh NAME
# Starts one of three Redis nodes in the role that the Sentinels know, or without an answer in its last role: a primary
# that was replaced during its outage must not return as one. The start file is rewritten, because Sentinel makes Redis
# store its whole configuration in it; only its `replicaof` is kept.
set -euo pipefail
umask 077
name=$1
file=/data/node.conf
REDISCLI_AUTH=$(cat /run/secrets/redis_health_password)
export REDISCLI_AUTH

primary_by_sentinels() { # the primary with the highest epoch of all Sentinels
  for sentinel in sentinel-1 sentinel-2 sentinel-3; do
    timeout 2 redis-cli --no-auth-warning --user health -h "$sentinel" -p 26379 sentinel master airflow 2>/dev/null |
      awk 'NR % 2 { key = $0; next } { of[key] = $0 } END { if (of["ip"]) print of["config-epoch"], of["ip"] }' || true
  done | sort -n | tail -n 1 | cut -d ' ' -f 2
}

primary=$(primary_by_sentinels)
if [[ -z $primary && -e $file ]]; then
  primary=$(awk '$1 == "replicaof" { print $2 }' "$file")
  primary=${primary:-$name}
fi
primary=${primary:-redis-1}

{
  echo "include /usr/local/etc/redis/replicated.conf"
  echo "replica-announce-ip $name"
  [[ $primary == "$name" ]] || echo "replicaof $primary 6379"
} >"$file.new"
mv "$file.new" "$file"
echo "$name starts; the primary is $primary"
exec redis-server "$file"
