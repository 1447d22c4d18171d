#!/bin/sh
# usage: with-secrets.sh COMMAND [ARG…]
# Runs Patroni or patronictl with this node's address and the passwords, which it reads from its environment only.
set -eu

secret() { cat "/run/secrets/$1"; }

PATRONI_SUPERUSER_PASSWORD=$(secret postgres_superuser_password)
PATRONI_REPLICATION_PASSWORD=$(secret postgres_replication_password)
PATRONI_RESTAPI_PASSWORD=$(secret patroni_api_password)
export PATRONI_SUPERUSER_PASSWORD PATRONI_REPLICATION_PASSWORD PATRONI_RESTAPI_PASSWORD
export PATRONI_RESTAPI_USERNAME=patroni
export PATRONI_SUPERUSER_USERNAME=postgres
export PATRONI_REPLICATION_USERNAME=replicator
# On Kubernetes (ops/kubernetes/data_nodes.py) the leader lock is there, and no etcd runs.
if [ -z "${PATRONI_KUBERNETES_LABELS:-}" ]; then
  PATRONI_ETCD3_PASSWORD=$(secret etcd_password)
  # Patroni reads etcd's password from the environment only if its hosts are there too.
  export PATRONI_ETCD3_PASSWORD PATRONI_ETCD3_USERNAME=root PATRONI_ETCD3_HOSTS=etcd-1:2379,etcd-2:2379,etcd-3:2379
fi
export PATRONI_POSTGRESQL_CONNECT_ADDRESS="$PATRONI_NAME:5432"
export PATRONI_RESTAPI_CONNECT_ADDRESS="$PATRONI_NAME:8008"
exec "$@"
