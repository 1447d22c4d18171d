#!/bin/bash
# Healthy when this member has a leader and authentication is on; turns authentication on at the first start.
# Exit code 1, for a restart: no answer, also at the peer address that the member started with. 75: no leader.
get() { # get HOST PORT PATH: the answer, without its last bracket
  exec 3<>"/dev/tcp/$1/$2" || return 1
  printf 'GET %s HTTP/1.0\r\n\r\n' "$3" >&3
  # Up to the end of the JSON object: the peer port may keep the connection open.
  IFS= read -r -t 2 -d '}' answer <&3 || return 1
  exec 3>&-
}

get "$ETCD_NAME-peer" 2380 /version || exit 1
get 127.0.0.1 2379 /health || exit 1
[[ $answer == *'"health":"true"'* ]] || exit 75
[ ! -e /tmp/protected ] || exit 0

ETCDCTL_USER=root:$(cat /run/secrets/etcd_password)
export ETCDCTL_USER
protected() { etcdctl auth status | grep -q 'Status: true'; }
if ! protected; then
  # Every member tries; the first one succeeds.
  printf '%s\n' "${ETCDCTL_USER#root:}" | etcdctl user add root --interactive=false
  etcdctl user grant-role root root
  etcdctl auth enable
fi
protected || exit 75
touch /tmp/protected
