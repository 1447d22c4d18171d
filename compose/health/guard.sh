#!/bin/sh
# usage: guard.sh LIMIT PROBE [ARG…]
#
# Runs a health probe for Docker, and restarts what stays unhealthy. Docker marks a container unhealthy and leaves it
# at that (https://github.com/moby/moby/issues/28400); this ends the main process, and `restart: always` does the rest.
#   probe exits 0    healthy
#   probe exits 75   (EX_TEMPFAIL) a dependency is away: unhealthy, but a restart would fix nothing
#   anything else, or no exit within GUARD_TIMEOUT seconds (8 unless set), or a guard that Docker itself had to kill:
#                    unhealthy; at LIMIT in a row SIGTERM to the main process, at twice LIMIT SIGKILL
# A failure while the container is starved of CPU is unhealthy too, and starts the count anew: a hung process does not
# wait for the CPU, and to restart a starved one only adds its start to what the machine cannot do. So nothing is
# restarted for as long as that lasts, and what hangs meanwhile is restarted afterwards.
# The main process is the child of docker-init (`init: true`). Counting starts when the container is GUARD_GRACE
# seconds old (120 unless set), so that a slow start is not a failure.
set -u
limit=$1
shift
state_file=/tmp/guard-state

# Centiseconds since the machine's start, and nanoseconds for which the main process has waited for a CPU.
measure() {
  read -r uptime _ </proc/uptime
  now=${uptime%.*}${uptime#*.}
  read -r main _ </proc/1/task/1/children
  waited=0
  [ ! -r "/proc/$main/schedstat" ] || read -r _ waited _ <"/proc/$main/schedstat"
}

# Whether the main process waited for a CPU in more than half of the time since the last check, or this very script gets
# less than a tenth of one. Not the pressure of the machine (PSI): "some" is at 90% on one that is merely busy.
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

# One more failure, unless it is too early for one or the container is starved.
failed() {
  read -r stat </proc/1/stat
  # Its start, in hundredths of a second since the machine's, is the 20th field after the name.
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
