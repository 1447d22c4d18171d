#!/bin/sh
# Healthy when Redis accepts writes, or is a replica in sync. Exit code 1: no answer, or LOADING (it reads its file).
# 75, no restart: a replica without its primary, or a primary without replicas.
REDISCLI_AUTH=$(cat /run/secrets/redis_health_password)
export REDISCLI_AUTH
ask() { redis-cli --no-auth-warning --user health -h 127.0.0.1 "$@"; }

# The key is the lock with which kombu restores messages of crashed workers. While it is held, no worker tries that:
# Airflow queues lost tasks again itself, and workers would need a script and the messages of others.
case $(ask set unacked_mutex health-check) in
  OK) ;;
  NOREPLICAS*) exit 75 ;;
  READONLY*) ask info replication | grep -q '^master_link_status:up' || exit 75 ;;
  *) exit 1 ;;
esac
