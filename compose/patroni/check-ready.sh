#!/bin/bash
# Healthy when Postgres serves, as primary or as replica. Exit code 1, for a restart: Patroni's loop hangs. 75: Postgres
# does not serve; Patroni recovers it, and a restart would only start that over.
get() { # get PATH: the status code
  exec 3<>/dev/tcp/127.0.0.1/8008 || return 1
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  read -r -t 2 _ code _ <&3 || return 1
  exec 3>&-
}

get /liveness || exit 1
[ "$code" = 200 ] || exit 1
get /readiness || exit 1
[ "$code" = 200 ] || exit 75
