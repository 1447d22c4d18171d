#!/bin/bash
# usage: start.sh NAME
# One Sentinel. It keeps what it learns in the file that it starts from: who it is, who the primary is, who the others
# are. All else is set anew at every start.
set -euo pipefail
umask 077
name=$1
file=/data/sentinel.conf
password=$(cat /run/secrets/redis_password)

learned() {
  [[ ! -e $file ]] ||
    grep -E '^sentinel (myid|monitor|config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel) ' "$file" || true
}

state=$(learned)
{
  cat /usr/local/etc/sentinel/sentinel.conf
  echo "sentinel announce-ip $name"
  echo "${state:-sentinel monitor airflow redis-1 6379 2}"
  # Away for 5 s is lost: longer than a busy machine's pauses, short enough to be back within 15 s.
  echo "sentinel down-after-milliseconds airflow 5000"
  echo "sentinel failover-timeout airflow 10000"
  echo "sentinel parallel-syncs airflow 2"
  echo "sentinel auth-pass airflow \"$password\""
  echo "requirepass \"$password\""
} >"$file.new"
mv "$file.new" "$file"
exec redis-server "$file" --sentinel
