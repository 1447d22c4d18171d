#!/bin/sh
# usage: restart-when-unhealthy.sh LIMIT PROBE [ARG…]
#
# Runs a health probe for Docker, and ends the main process of a container that stays unhealthy: Docker only marks it
# (https://github.com/moby/moby/issues/28400). `restart: always` then restarts it.
#   exit code 0     healthy
#   exit code 75    (EX_TEMPFAIL) outage of a dependency: unhealthy, no restart
#   any other, no exit within GUARD_TIMEOUT seconds (default 8), or Docker killed this script:
#                   unhealthy; after LIMIT in a row SIGTERM to the main process, after twice LIMIT SIGKILL
# GUARD_GRACE: failures count once the container is this many seconds old (default 120).
set -u
limit=$1
shift
state_file=/tmp/guard-state

# Centiseconds since the host's start, and nanoseconds for which the main process has waited for a CPU.
measure() {
  read -r uptime _ </proc/uptime
  now=${uptime%.*}${uptime#*.}
  read -r main _ </proc/1/task/1/children
  waited=0
  [ ! -r "/proc/$main/schedstat" ] || read -r _ waited _ <"/proc/$main/schedstat"
}

# Whether the main process waited for a CPU in more than half of the time since the last check, or this script gets less
# than a tenth of one. The host's pressure (PSI "some") is no measure: it is at 90% on a host that is only busy.
starved() {
  [ "$((waited - last_waited))" -le "$(((now - last) * 5000000))" ] || return 0
  [ -r /proc/self/schedstat ] || return 1
  read -r ran_first waited_first _ </proc/self/schedstat
  while
    count=0
    while [ "$count" -lt 500 ]; do count=$((count + 1)); done
    read -r ran waits _ </proc/self/schedstat
    [ "$((waits - waited_first))" -lt 500000000 ] || return 0
    [ "$((ran - ran_first))" -lt 50000000 ]
  do :; done
  return 1
}

# A failure while starved resets the count: a hung process does not wait for a CPU, and restarts add load. A process
# that hangs meanwhile is restarted when the starvation ends.
failed() {
  read -r stat </proc/1/stat
  # The 20th field after the name: its start, in hundredths of a second since the host's start.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [ "$((now - ${20}))" -ge "$((${GUARD_GRACE:-120} * 100))" ] || return 0
  if starved; then
    echo "starved of CPU: the failure does not count"
    failures=0
    return 0
  fi
  failures=$((failures + 1))
  signal=
  [ "$failures" -lt "$limit" ] || signal=TERM
  [ "$failures" -lt "$((2 * limit))" ] || signal=KILL
  if [ -n "$signal" ]; then
    echo "unhealthy $failures times in a row: SIG$signal to process $main"
    kill -s "$signal" "$main"
  fi
}

measure
failures=0 last=$now last_waited=$waited begun=
[ ! -s "$state_file" ] || read -r failures last last_waited begun <"$state_file"
[ -z "$begun" ] || failed
echo "$failures $last $last_waited begun" >"$state_file"

timeout "${GUARD_TIMEOUT:-8}" "$@"
status=$?

measure
case $status in
  0) failures=0 ;;
  75) ;;
  *) failed ;;
esac
echo "$failures $now $waited" >"$state_file"
[ "$status" -eq 0 ]
