#!/bin/sh
# usage: pgbackrest-archive-push.sh SEGMENT LIMIT
# Postgres' archive_command, which pgBackRest finds by its own name in it: sends a segment of the log to every storage.
# While at most LIMIT segments wait, all storages must have it. Above that the disk of Postgres would fill: one storage
# that has it is enough, so that one that is down leaves no gap in the other. If none takes it, the segment is dropped.
# pgBackRest's archive-push-queue-max would drop what waits for all storages. Pushing to both at once, it waits 9 times
# io-timeout for a server that does not answer, and keeps the log from the other storage for minutes.
set -eu

own=${TMPDIR:-/tmp}/pgbackrest
numbers=$(sed -n 's/^repo\([0-9]\)-path=.*/\1/p' "$PGBACKREST_CONFIG")
# Postgres' working directory is its data.
ready=$(find pg_wal/archive_status -name '*.ready' | sort)
waiting=$(echo "$ready" | wc -l)

waits() { # waits SEGMENT: fails as the last command did; Postgres tries again
  code=$?
  echo "hint: $1 stays on this disk and is sent again; ./ops/stack doctor lists what to do" >&2
  exit "$code"
}

push() { # push NUMBER SECONDS [OPTION…]: to one storage
  number=$1 seconds=$2
  shift 2
  (umask 077 && grep -v "^repo[^$number]-" "$PGBACKREST_CONFIG" >"$own-$number.conf")
  timeout "$seconds" pgbackrest --config="$own-$number.conf" --lock-path="$own-$number" "$@"
}

if [ "$waiting" -gt "$2" ]; then
  for number in $numbers; do
    ! push "$number" 60 archive-push "$1" || exit 0
  done
  echo "dropped the segment $1 of the log: $waiting wait, and no storage takes it" >&2
elif [ "${#numbers}" = 1 ]; then
  pgbackrest archive-push "$1" || waits "$1"
else
  # Each storage gets all that waits: pgBackRest's background process sends it, and is started for the newest segment.
  newest=$(basename "$(echo "$ready" | tail -n 1)" .ready)
  push_all() { # push_all NUMBER SEGMENT: fails if the storage does not get the segment within 20 s
    async="--archive-async --archive-timeout=20 --spool-path=$own-$1"
    # shellcheck disable=SC2086
    push "$1" 60 $async archive-push "$2"
    # shellcheck disable=SC2086
    [ "$newest" = "$(basename "$2")" ] || push "$1" 60 $async archive-push "pg_wal/$newest" || true
  }
  children=
  for number in $numbers; do
    push_all "$number" "$1" &
    children="$children $!"
  done
  for child in $children; do wait "$child" || waits "$1"; done
fi
