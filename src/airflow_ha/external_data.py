"""Connects to the operator's own Postgres and Redis as the stack's clients do, before the stack starts.

`python -m airflow_ha.external_data` reads {"urls": {title: URL}, "files": {name: text}} as JSON from its input. It
writes {title: error} for each URL that cannot be used.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

MOUNTED: Final = "/run/secrets/"
SECONDS: Final = 5
UNREACHABLE: Final = re.compile(
    r"could not translate host name|failed to resolve host|Name or service not known|No address associated"
    r"|Temporary failure in name resolution|Connection refused|No route to host|Network is unreachable"
    r"|timeout expired|[Tt]imed? ?out",
)
"""Errors of a server that does not answer: the reason may be the network of this process alone."""


def connect_postgres(url: str) -> None:
    """Log in to a database with the driver that its URL names."""
    from airflow_ha.health.dependencies import libpq_url

    if "+psycopg_async" in url:
        import psycopg

        psycopg.connect(libpq_url(url.replace("+psycopg_async", "+psycopg2")), connect_timeout=SECONDS).close()
    else:
        import psycopg2

        psycopg2.connect(libpq_url(url.removeprefix("db+")), connect_timeout=SECONDS).close()


def connect_redis(url: str) -> None:
    """Log in to a broker."""
    import redis

    client = redis.Redis.from_url(url, socket_connect_timeout=SECONDS, socket_timeout=SECONDS)
    try:
        client.ping()
    except redis.exceptions.NoPermissionError:
        pass  # the log-in succeeded
    finally:
        client.close()


def error_of(url: str) -> str:
    """Return why a URL cannot be used, as one line without its password; empty if it can."""
    try:
        (connect_redis if url.startswith("redis") else connect_postgres)(url)
    except Exception as error:
        return " ".join(str(error).split())
    return ""


def main() -> None:
    """Check every URL of the input."""
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in request["files"].items():
            path = Path(folder) / name
            path.touch(mode=0o600)
            path.write_text(text)
        problems = {
            title: error
            for title, url in request["urls"].items()
            if (error := error_of(url.replace(MOUNTED, f"{folder}/")))
        }
    json.dump(problems, sys.stdout)


if __name__ == "__main__":
    main()
