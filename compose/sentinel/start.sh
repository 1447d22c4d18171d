#!/bin/bash
# usage: start.sh NAME
# Starts one Sentinel. Its own id, the primary and the other Sentinels stay in its start file; all other lines are
# rewritten at every start.
set -euo pipefail
umask 077
name=$1
file=/data/sentinel.conf

learned() {
  [[ ! -e $file ]] ||
    grep -E '^sentinel (myid|monitor|config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel) ' "$file" || true
}

state=$(learned)
{
  cat /usr/local/etc/sentinel/sentinel.conf
  echo "sentinel announce-ip $name"
  echo "${state:-sentinel monitor airflow redis-1 6379 2}"
  # Down after 5 s: longer than the pauses of a busy host, short enough for a failover within 15 s.
  echo "sentinel down-after-milliseconds airflow 5000"
  echo "sentinel failover-timeout airflow 10000"
  echo "sentinel parallel-syncs airflow 2"
  # Its users, and its log-ins at Redis and at the other Sentinels.
  cat /run/secrets/sentinel_auth.conf
} >"$file.new"
mv "$file.new" "$file"
exec redis-server "$file" --sentinel
