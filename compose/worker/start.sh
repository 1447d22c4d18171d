#!/bin/sh
# Starts a worker with an empty /tmp: it is a volume on disk, and a killed worker leaves files in it.
chmod -R u+rwX /tmp 2>/dev/null
find /tmp -mindepth 1 -delete
mkdir -p "$HOME"
exec airflow "$@"
