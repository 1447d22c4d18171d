#!/bin/sh
# Starts a worker with an empty /tmp. That is a volume on disk, which keeps what a killed worker left behind.
chmod -R u+rwX /tmp 2>/dev/null
find /tmp -mindepth 1 -delete
mkdir -p "$HOME"
exec airflow "$@"
