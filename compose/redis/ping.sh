#!/bin/sh
# Healthy when Redis answers, and accepts writes or follows one that does: one that still loads its file answers LOADING,
# and that is not ready. A replica whose primary is away, or a primary whose replicas are, waits for them.
REDISCLI_AUTH=$(cat /run/secrets/redis_password)
export REDISCLI_AUTH
ask() { redis-cli --no-auth-warning -h 127.0.0.1 "$@"; }

case $(ask set stack:health ok ex 60) in
  OK) ;;
  NOREPLICAS*) exit 75 ;;
  READONLY*) ask info replication | grep -q '^master_link_status:up' || exit 75 ;;
  *) exit 1 ;;
esac
