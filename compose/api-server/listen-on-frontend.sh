#!/bin/sh
# usage: listen-on-frontend.sh OPTION ARG…
# Starts an Airflow server with OPTION and the address of the network `frontend`, the only one with a route outside.
# Tasks share the other networks: there they would reach the server without the gateway's limits.
option=$1
shift
address=$(python -S -c 'from airflow_ha.health.__main__ import outer_address; print(outer_address())') || exit 1
exec airflow "$@" "$option" "$address"
