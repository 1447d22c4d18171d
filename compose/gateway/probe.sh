#!/bin/bash
# Healthy when both sides of the gateway answer. The image has no curl; bash speaks TCP itself.
for port in 8080 8081; do
  exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
  printf 'GET /gateway-health HTTP/1.0\r\n\r\n' >&3
  read -r -t 2 _ code _ <&3 || exit 1
  exec 3>&-
  [ "$code" = 200 ] || exit 1
done
