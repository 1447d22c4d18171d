#!/bin/bash
# Starts the etcd member ETCD_NAME. Its peer port has no password, so it listens on the members' own network only.
set -euo pipefail
name=$ETCD_NAME
read -r peer_address _ < <(getent ahostsv4 "$name-peer")
exec etcd \
  --data-dir /var/lib/etcd/data \
  --listen-peer-urls "http://$peer_address:2380" \
  --initial-advertise-peer-urls "http://$name-peer:2380" \
  --listen-client-urls http://0.0.0.0:2379 \
  --advertise-client-urls "http://$name:2379" \
  --initial-cluster etcd-1=http://etcd-1-peer:2380,etcd-2=http://etcd-2-peer:2380,etcd-3=http://etcd-3-peer:2380 \
  --initial-cluster-state new \
  --auto-compaction-mode periodic \
  --auto-compaction-retention 10m \
  --quota-backend-bytes 268435456 \
  --log-level warn
