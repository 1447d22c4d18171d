#!/bin/sh
# Healthy when the exporter answers and relays to the collector's current address. It resolves that once, at its start
# (pkg/relay/relay.go of statsd_exporter v0.30): a collector with a new address receives nothing until a restart.
wget -q -T 3 -O /dev/null http://statsd-exporter.monitoring:9102/-/healthy || exit 1

seen=/tmp/collector-address
address=$(nslookup otel-collector.monitoring 2>/dev/null | awk '/^Address/ { last = $NF } END { print last }')
# An outage of the collector is no reason to restart the exporter.
[ -n "$address" ] || exit 0
[ -s "$seen" ] || echo "$address" >"$seen"
if [ "$(cat "$seen")" != "$address" ]; then
  echo "the collector moved from $(cat "$seen") to $address"
  exit 1
fi
