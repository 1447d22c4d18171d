"""How many commits a second Postgres takes that notify schedulers, alone and with a synchronous replica.

Postgres takes one lock for all commits with a NOTIFY and keeps it until the commit is on disk, and on the replica's. So
those commits wait for one another, and the NOTIFY that wakes schedulers caps the completions of tasks a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import compose, settings_file
from ops.bench.statistics import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.bench.statistics import Sample
    from ops.bench.targets import Side
    from ops.project import Project

NAME = "commits"
CONNECTIONS = (1, 16, 64)
SECONDS = 5
SENTENCE = (
    f"Commits of one updated row by {', '.join(map(str, CONNECTIONS[:-1]))} and {CONNECTIONS[-1]} connections for "
    f"{SECONDS} s each, with a NOTIFY and without, on a Postgres of its own: alone, and with a synchronous replica on "
    "the same disk."
)
SIDES: Final = {
    ("alone", "silent"): "alone, no NOTIFY",
    ("alone", "notify"): "alone, NOTIFY",
    ("replicated", "silent"): "replicated, no NOTIFY",
    ("replicated", "notify"): "replicated, NOTIFY",
}
"""A side's name by what the script says of it."""
BASE = SIDES["alone", "silent"]
FOLDER: Final = "/var/lib/postgresql/data/commits"
"""On the image's volume: a tmpfs would commit to memory."""
SCRIPT: Final = """\
set -eu
folder=$1 seconds=$2
shift 2
mkdir -p "$folder"
cd "$folder"
unset PGDATA
export PGHOST=$folder PGPORT=5432 PGUSER=postgres
settings="-c listen_addresses='' -c unix_socket_directories=$folder -c max_connections=200"
trap 'for of in replica primary; do pg_ctl --pgdata=$of --mode=immediate stop >/dev/null 2>&1 || :; done' EXIT
initdb --pgdata=primary --username=postgres --auth=trust --data-checksums >/dev/null
pg_ctl --pgdata=primary --log=primary.log --options="$settings" --wait start >/dev/null
psql -qc 'CREATE TABLE done (id int PRIMARY KEY, n int) WITH (fillfactor = 50)' \\
  -c 'INSERT INTO done SELECT id, 0 FROM generate_series(0, 999) id'
update='UPDATE done SET n = n + 1 WHERE id = :client_id;'
measure() {
  for connections in "$@"; do
    printf 'BEGIN; %s COMMIT;\\n' "$update" >silent.sql
    printf "BEGIN; %s NOTIFY bench, 'task'; COMMIT;\\n" "$update" >notify.sql
    for how in silent notify; do
      pgbench --no-vacuum --client="$connections" --jobs=1 --time="$seconds" --file="$how.sql" postgres >out 2>&1 ||
        { cat out >&2; exit 1; }
      echo "$nodes $how $connections $(sed -n 's/^tps = \\([0-9.]*\\).*/\\1/p' out)"
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
"""For `sh -c`, with the folder, the seconds of each measurement and the numbers of connections."""


def figure(connections: int) -> str:
    """The figure's name."""
    return f"{connections} connection{'' if connections == 1 else 's'}: commits/s"


def samples(output: str) -> dict[str, Sample]:
    """Return the samples by side, of the lines that the script prints."""
    found: dict[str, Sample] = {}
    for line in output.splitlines():
        nodes, how, connections, rate = line.split()
        found.setdefault(SIDES[nodes, how], {})[figure(int(connections))] = float(rate)
    return found


def compare(
    project: Project, _side: Side, rounds: int, taken: dict[str, list[Sample]], report: Callable[[str], None]
) -> None:
    """Measure in a container of its own, which is removed after each round.

    A Comparison's.

    Raises:
        StackError: The container failed.
    """
    image = settings_file.read(project)["POSTGRES_IMAGE"]
    arguments = (FOLDER, str(SECONDS), *map(str, CONNECTIONS))
    for number in range(1, rounds + 1):
        output = compose.docker(
            *("run", "--rm", "--init", "--network=none", "--user=999:999", "--entrypoint=sh", image),
            *("-c", SCRIPT, "sh", *arguments),
        )
        sides = samples(output)
        for name in SIDES.values():
            taken.setdefault(name, []).append(sides[name])
        capped = sides[SIDES["replicated", "notify"]][figure(CONNECTIONS[-1])]
        report(f"round {number} of {rounds}: {shown(capped)} commits/s with NOTIFY and a replica")
