#!/bin/sh
# Healthy when Redis answers and accepts writes: one that still loads its file answers LOADING, and that is not ready.
REDISCLI_AUTH=$(cat /run/secrets/redis_password)
export REDISCLI_AUTH
[ "$(redis-cli --no-auth-warning -h 127.0.0.1 set stack:health ok ex 60)" = OK ]
