#!/bin/sh
# usage: check-log-in.sh URL
# Healthy when a GET without a password is answered by 401: the server answers, and its log-in is on.
wget -q -T 3 -O /dev/null "$1" 2>&1 | grep -q ' 401 '
