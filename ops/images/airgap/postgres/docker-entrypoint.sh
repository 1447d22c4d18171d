#!/usr/bin/env bash
# Creates the database on an empty PGDATA, then becomes the server. Of the official image's behaviour it has what
# ops/images/airgap/contract.yaml lists: https://github.com/docker-library/docs/tree/master/postgres
set -euo pipefail

# NAME, or the content of the file that NAME_FILE names, or the default.
setting() {
  local name=$1 default=${2:-} file_name=$1_FILE
  if [[ -n ${!name:-} && -n ${!file_name:-} ]]; then
    echo "cannot use both $name and $file_name; hint: set one of them" >&2
    return 1
  fi
  if [[ -n ${!file_name:-} ]]; then cat "${!file_name}"; else printf '%s' "${!name:-$default}"; fi
}

as_root_prepare_and_drop() {
  install -d -o postgres -g postgres -m 0700 "$PGDATA"
  install -d -o postgres -g postgres -m 3775 /var/run/postgresql
  find "$PGDATA" ! -user postgres -exec chown postgres:postgres {} +
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
}

# psql on the Unix socket: the server listens only there until the database is complete.
sql() { psql --no-psqlrc --no-password -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"; }

run_init_file() {
  echo "$0: $1"
  case $1 in
    *.sh)
      if [[ -x $1 ]]; then
        "$1"
      else
        # shellcheck source=/dev/null
        . "$1"
      fi ;;
    *.sql) sql -f "$1" ;;
    *.sql.gz) gunzip -c "$1" | sql ;;
    *) echo "$0: ignored $1" ;;
  esac
}

# Arguments: the server's own, so that it has the same settings while the database is created.
create_database() {
  local password auth_method file
  password=$(setting POSTGRES_PASSWORD)
  auth_method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [[ -z $password && $auth_method != trust ]]; then
    echo "cannot create the database: its superuser has no password; hint: set POSTGRES_PASSWORD_FILE" >&2
    exit 1
  fi
  # POSTGRES_INITDB_ARGS is a list of words, without quotes.
  local -a initdb_arguments
  read -ra initdb_arguments <<<"$(setting POSTGRES_INITDB_ARGS)"
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$password") -D "$PGDATA" \
    ${initdb_arguments[@]+"${initdb_arguments[@]}"}
  printf '\nhost all all all %s\n' "$auth_method" >>"$PGDATA/pg_hba.conf"

  export PGPASSWORD=$password
  # No TCP: no client connects before the database is complete.
  pg_ctl -D "$PGDATA" -o "$(printf '%q ' "$@" -c listen_addresses=)" -w start
  if [[ $POSTGRES_DB != postgres ]]; then
    psql --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --set db="$POSTGRES_DB" \
      <<<'CREATE DATABASE :"db";'
  fi
  for file in /docker-entrypoint-initdb.d/*; do
    [[ ! -e $file ]] || run_init_file "$file"
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
  unset PGPASSWORD
}

[[ ${1:-} != -* ]] || set -- postgres "$@"
if [[ ${1:-} == postgres ]]; then
  ((EUID != 0)) || as_root_prepare_and_drop "$@"
  mkdir -p "$PGDATA"
  # A volume's root may belong to another user; the server reports that itself.
  chmod 0700 "$PGDATA" || true
  if [[ -s $PGDATA/PG_VERSION ]]; then
    echo "$0: the database exists"
  else
    POSTGRES_USER=$(setting POSTGRES_USER postgres)
    POSTGRES_DB=$(setting POSTGRES_DB "$POSTGRES_USER")
    export POSTGRES_USER POSTGRES_DB
    create_database "${@:2}"
  fi
  unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
fi
exec "$@"
