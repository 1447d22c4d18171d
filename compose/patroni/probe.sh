#!/bin/bash
# Healthy when Postgres serves, as primary or as replica. A Patroni whose loop stands still is restarted; a Postgres that
# does not serve is Patroni's affair, and a restart in the middle of it would only start it over.
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
