#!/bin/sh
# usage: restore-log.sh FILE TARGET
# restore_command: a replica that was built from a backup gets the log since then from the storages, until they have no
# more. After that it streams from the primary only: a storage that is slow or down must not delay a failover.
[ -e built-from-backup ] || exit 1
pgbackrest archive-get "$1" "$2"
code=$?
# 1: no storage has it. A history may be missing also before the end of the log.
case $code:$1 in 1:*.history) ;; 1:*) rm built-from-backup ;; esac
exit "$code"
