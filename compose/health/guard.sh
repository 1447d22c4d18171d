#!/bin/sh
# usage: guard.sh LIMIT PROBE [ARG…]
#
# Runs a health probe for Docker, and restarts what stays unhealthy. Docker marks a container unhealthy and leaves it
# at that (https://github.com/moby/moby/issues/28400); this ends the main process, and `restart: always` does the rest.
#   probe exits 0    healthy
#   probe exits 75   (EX_TEMPFAIL) something it depends on is away: unhealthy, but a restart would mend nothing
#   anything else    unhealthy; at LIMIT in a row SIGTERM to the main process, at twice LIMIT SIGKILL
# The main process is the child of docker-init (`init: true`). Counting starts when the container is GUARD_GRACE
# seconds old (120 unless set), so that a slow start is not a failure.
set -u
limit=$1
shift
count_file=/tmp/guard-failures

"$@"
status=$?

if [ "$status" -eq 0 ]; then
  rm -f "$count_file"
  exit 0
fi
if [ "$status" -eq 75 ]; then
  exit 1
fi

age=$(($(date +%s) - $(stat -c %Y /proc/1)))
if [ "$age" -lt "${GUARD_GRACE:-120}" ]; then
  exit 1
fi

failures=$(($(cat "$count_file" 2>/dev/null || echo 0) + 1))
echo "$failures" >"$count_file"
signal=
[ "$failures" -lt "$limit" ] || signal=TERM
[ "$failures" -lt "$((2 * limit))" ] || signal=KILL
if [ -n "$signal" ]; then
  main=$(cat /proc/1/task/1/children)
  echo "unhealthy $failures times in a row: SIG$signal to process $main"
  # The list is one or more numbers: each an argument.
  # shellcheck disable=SC2086
  kill -s "$signal" $main
fi
exit 1
