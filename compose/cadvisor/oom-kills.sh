#!/bin/sh
# Prints the OOM kills of each container since the last call as StatsD counters; nothing at the first call.
#
# cAdvisor's container_oom_events_total needs /dev/kmsg. Any user may read a cgroup's count (v2 memory.events, v1
# memory.oom_control), but it goes with its container: when the host's sum (/proc/vmstat) exceeds the cgroups' counts,
# the containers that ended or restarted are named.
set -u
root=${CGROUP_ROOT:-/sys/fs/cgroup}
vmstat=${VMSTAT:-/proc/vmstat}
state=${STATE:-/tmp/oom-kills}

# The sum first: a kill between the two readings is then in the cgroups' counts only, never in the sum only.
sum=$(sed -n 's/^oom_kill //p' "$vmstat")
set -- "$root"/memory/docker/*/ "$root"/memory/system.slice/docker-*.scope/ \
  "$root"/docker/*/ "$root"/system.slice/docker-*.scope/
{
  cat "$state" 2>/dev/null
  echo "now ${sum:--}"
  stat -c 'cgroup %n %i' "$@" 2>/dev/null
  for folder; do printf '%s\n' "${folder}memory.events" "${folder}memory.oom_control"; done |
    xargs grep -H '^oom_kill ' 2>/dev/null | sed 's/:oom_kill / /; s/^/count /'
} | awk -v state="$state" '
  function id(path) {
    sub(/^.*docker[-\/]/, "", path)
    return substr(path, 1, 12)
  }
  function report(instance, number, what) {
    printf "airflow.ha_container_oom_kills:%d|c|#airflow_instance:%s,killed:%s\n", number, instance, what
  }
  # State of the last call: the sum, kills that no cgroup counted (and for how many calls), containers that ended.
  $1 == "sum" { old_sum = $2; known = 1 }
  $1 == "rest" { rest = $2; waited = $3 }
  $1 == "old" { old_inode[$2] = $3; old_count[$2] = $4 }
  $1 == "ended" { ended[$2] = $3 - 1 }
  $1 == "now" { sum = $2 }
  $1 == "cgroup" { inode[id($2)] = $3 }
  $1 == "count" { count[id($2)] = $3 }
  END {
    for (instance in count) if (instance in inode) {
      same = (instance in old_inode) && old_inode[instance] == inode[instance]
      kills = count[instance] - (same ? old_count[instance] : 0)
      if (known && kills > 0) { report(instance, kills, "process"); counted += kills }
      if ((instance in old_inode) && !same) ended[instance] = 3
      print "old", instance, inode[instance], count[instance] + 0 > state
    }
    for (instance in old_inode) if (!(instance in inode)) ended[instance] = 3
    if (known && sum != "-") rest += sum - old_sum - counted
    if (rest > 0) for (instance in ended) if (ended[instance] > 0) {
      report(instance, 1, "container"); found = 1; delete ended[instance]
    }
    # For three calls the container may still end, or the sum catch up. After that it was a process outside containers.
    waited = (rest == 0 || found) ? 0 : waited + 1
    if (found || waited > 3) { rest = 0; waited = 0 }
    for (instance in ended) if (ended[instance] > 0) print "ended", instance, ended[instance] > state
    print "rest", rest + 0, waited + 0 > state
    print "sum", sum > state
  }'
