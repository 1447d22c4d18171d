#!/bin/bash
# usage: start-node.sh NAME
# One Redis of three. It starts as what the Sentinels say that it is, or when none answers, as what it was: a primary that
# was replaced while it was away must not come back as one. The file that it starts from is made anew, since Sentinel
# makes Redis write its whole configuration there; only the line that says whose replica it is counts.
set -euo pipefail
umask 077
name=$1
file=/data/node.conf
REDISCLI_AUTH=$(cat /run/secrets/redis_password)
export REDISCLI_AUTH

primary_by_sentinels() { # the primary's name with the highest epoch that any Sentinel knows
  for sentinel in sentinel-1 sentinel-2 sentinel-3; do
    timeout 2 redis-cli --no-auth-warning -h "$sentinel" -p 26379 sentinel master airflow 2>/dev/null |
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
