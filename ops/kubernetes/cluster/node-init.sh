#!/bin/sh
# usage: node-init.sh NODE STATE PROGRAMS
# The first process of a node of the test cluster, in mount, PID and UTS namespaces of its own: when its init is killed, so
# is every process of the node, as in a power cut. STATE has the node's configuration, PROGRAMS the built programs.
set -eu
node=$1 state=$2 programs=$3

hostname "$node"
mount -t tmpfs -o mode=755 tmpfs /run
# Folders outside any configured root, which the nodes would share.
while read -r folder; do
  mount -t tmpfs -o mode=755 tmpfs "$folder"
done <"$state/own-folders"
# kubelet insists on writing these settings of the whole machine: it finds files that already hold its values.
mkdir -p "$state/sysctl"
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  file="$state/sysctl/$(echo "${setting%=*}" | tr / _)"
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done
mount --make-rshared /

containerd --config "$state/containerd.toml" >>"$state/containerd.log" 2>&1 &
tries=0
until ctr --address "$state/run/containerd.sock" version >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ "$tries" -lt 120 ] || exit 1
  sleep 0.5
done
# Restarted, as by systemd's unit of kubelet: it ends if containerd answers but has not initialized its pods' part yet.
while ! "$programs/kubelet" --config="$state/kubelet.yaml" --kubeconfig="$state/kubelet.conf" \
  --root-dir="$state/kubelet" --hostname-override="$node" --node-ip="$(cat "$state/address")" \
  --cert-dir="$state/kubelet-pki"; do
  sleep 1
done &
"$programs/kube-proxy" --config="$state/proxy.yaml" &
wait
