"""Commits with a NOTIFY that Postgres completes a second, alone and with a synchronous replica.

All commits with a NOTIFY share one lock of Postgres. Each holds the lock until it is on disk, and on the replica's
disk. The NOTIFY that wakes schedulers therefore limits the task completions a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import compose, settings_file
from ops.bench.statistics import format_number

if TYPE_CHECKING:
    from ops.bench.statistics import Sample
    from ops.bench.targets import Measurement

NAME = "commits"
CONNECTIONS = (1, 16, 64)
SECONDS = 5
SUMMARY = (
    f"Commits of one updated row by {', '.join(map(str, CONNECTIONS[:-1]))} and {CONNECTIONS[-1]} connections for "
    f"{SECONDS} s each, with a NOTIFY and without, on a separate Postgres: alone, and with a synchronous replica on "
    "the same disk."
)
VARIANTS: Final = {
    ("alone", "silent"): "alone, no NOTIFY",
    ("alone", "notify"): "alone, NOTIFY",
    ("replicated", "silent"): "replicated, no NOTIFY",
    ("replicated", "notify"): "replicated, NOTIFY",
}
"""A variant's name, by the first two words of the script's output lines."""
BASE = VARIANTS["alone", "silent"]
FOLDER: Final = "/var/lib/postgresql/data/commits"
"""On the image's volume; a tmpfs would commit to memory."""
SCRIPT: Final = """\
set -eu
folder=$1 seconds=$2
shift 2
mkdir -p "$folder"
cd "$folder"
unset PGDATA
export PGHOST=$folder PGPORT=5432 PGUSER=postgres
settings="-c listen_addresses='' -c unix_socket_directories=$folder -c max_connections=200"
trap 'for node in replica primary; do pg_ctl --pgdata=$node --mode=immediate stop >/dev/null 2>&1 || :; done' EXIT
initdb --pgdata=primary --username=postgres --auth=trust --data-checksums >/dev/null
pg_ctl --pgdata=primary --log=primary.log --options="$settings" --wait start >/dev/null
psql -qc 'CREATE TABLE done (id int PRIMARY KEY, n int) WITH (fillfactor = 50)' \\
  -c 'INSERT INTO done SELECT id, 0 FROM generate_series(0, 999) id'
update='UPDATE done SET n = n + 1 WHERE id = :client_id;'
measure() {
  for connections in "$@"; do
    printf 'BEGIN; %s COMMIT;\\n' "$update" >silent.sql
    printf "BEGIN; %s NOTIFY bench, 'task'; COMMIT;\\n" "$update" >notify.sql
    for commit in silent notify; do
      pgbench --no-vacuum --client="$connections" --jobs=1 --time="$seconds" --file="$commit.sql" postgres >out 2>&1 ||
        { cat out >&2; exit 1; }
      echo "$nodes $commit $connections $(sed -n 's/^tps = \\([0-9.]*\\).*/\\1/p' out)"
    done
  done
}
nodes=alone
measure "$@"
pg_basebackup --pgdata=replica --write-recovery-conf --checkpoint=fast
pg_ctl --pgdata=replica --log=replica.log --options="$settings -c port=5433" --wait start >/dev/null
psql -qc "ALTER SYSTEM SET synchronous_standby_names = '*'" -c 'SELECT pg_reload_conf()' >/dev/null
tries=0
until [ "$(psql -qAtc 'SELECT sync_state FROM pg_stat_replication')" = sync ]; do
  tries=$((tries + 1))
  [ $tries -lt 300 ] || { echo 'the replica does not become synchronous' >&2; cat replica.log >&2; exit 1; }
  sleep 0.1
done
nodes=replicated
measure "$@"
"""
"""Script for `sh -c`; its arguments are the folder, the seconds of each measurement and the numbers of connections."""


def rate_figure(connections: int) -> str:
    """Return the figure's name."""
    return f"{connections} connection{'' if connections == 1 else 's'}: commits/s"


def parse_output(output: str) -> dict[str, Sample]:
    """Return a sample for each variant, from the lines that the script prints."""
    samples: dict[str, Sample] = {}
    for line in output.splitlines():
        nodes, commit, connections, rate = line.split()
        samples.setdefault(VARIANTS[nodes, commit], {})[rate_figure(int(connections))] = float(rate)
    return samples


def compare(measurement: Measurement) -> None:
    """Measure all variants in a separate container, which is removed after each round.

    Raises:
        StackError: The container failed.
    """
    image = settings_file.read(measurement.project)["POSTGRES_IMAGE"]
    arguments = (FOLDER, str(SECONDS), *map(str, CONNECTIONS))
    for number in measurement.round_numbers():
        output = compose.docker(
            *("run", "--rm", "--init", "--network=none", "--user=999:999", "--entrypoint=sh", image),
            *("-c", SCRIPT, "sh", *arguments),
        )
        samples = parse_output(output)
        for variant in VARIANTS.values():
            rate = samples[variant][rate_figure(CONNECTIONS[-1])]
            measurement.add(number, variant, samples[variant], f"{format_number(rate)} commits/s")
