#!/bin/bash
# usage: check-http.sh PORT/PATH…
# Healthy when each GET on this host returns 200. For images without curl and wget: bash opens the connection itself.
# Prints the gateway's line about refused log-ins, for `./ops/stack status`.
for target; do
  exec 3<>"/dev/tcp/127.0.0.1/${target%%/*}" || exit 1
  printf 'GET /%s HTTP/1.0\r\n\r\n' "${target#*/}" >&3
  read -r -t 2 _ code _ <&3 || exit 1
  [ "$code" = 200 ] || exit 1
  while read -r -t 2 line <&3; do
    [ "${line#refused log-ins:}" = "$line" ] || echo "$line"
  done
  exec 3>&-
done
