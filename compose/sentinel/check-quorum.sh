#!/bin/sh
# Healthy when this Sentinel reaches the primary and a quorum of Sentinels. 75, no restart: it answers without a quorum.
REDISCLI_AUTH=$(cat /run/secrets/redis_health_password)
export REDISCLI_AUTH
case $(redis-cli --no-auth-warning --user health -h 127.0.0.1 -p 26379 sentinel ckquorum airflow) in
  OK*) ;;
  NOQUORUM* | NOGOODSLAVE*) exit 75 ;;
  *) exit 1 ;;
esac
