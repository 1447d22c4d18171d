"""The SQLSTATE with which Postgres refuses a connection, which psycopg2 does not expose.

After a refused connection, psycopg2 2.9.13 (libpq 17) and psycopg 3.3.6 (libpq 18) leave `pgcode`, `sqlstate` and
`diag` as None, and libpq's trace omits the refusal. Only the message is left, in the language of the server's
`lc_messages`. With PQERRORS_SQLSTATE libpq writes the SQLSTATE in place of that message:
https://www.postgresql.org/docs/17/libpq-control.html#LIBPQ-PQSETERRORVERBOSITY. The setting needs an open handle, so
the connection is tried once more through the asynchronous interface.
"""

from __future__ import annotations

import ctypes
import re
import select
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2 import _psycopg, extensions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PQERRORS_SQLSTATE: Final = 3
REFUSED: Final = re.compile(r":  ([0-9A-Z]{5})\s*\Z")
"""The end of the message, which is the last node's refusal: libpq tries no node after a failed authentication."""


def connect_sqlstate(cargs: Sequence[Any], cparams: Mapping[str, Any], seconds: float) -> str | None:
    """Return the SQLSTATE of a refused connection; None if it is not refused, or not within the timeout.

    Args:
        cargs: Positional arguments of psycopg2's `connect`.
        cparams: Keyword arguments of psycopg2's `connect`.
        seconds: Timeout; asynchronous connections ignore `connect_timeout`.
    """
    deadline = time.monotonic() + seconds
    connection: Any = None
    try:
        connection = psycopg2.connect(*cargs, **{**cparams, "async_": 1})
        # The extension's handle also resolves the symbols of the libpq that it is linked to.
        libpq = ctypes.CDLL(_psycopg.__file__)
        libpq.PQsetErrorVerbosity(ctypes.c_void_p(connection.pgconn_ptr), PQERRORS_SQLSTATE)
        while (state := connection.poll()) != extensions.POLL_OK:
            left = max(0.0, deadline - time.monotonic())
            waiting = select.poll()  # select.select supports no descriptor above 1023
            waiting.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
            if not waiting.poll(left * 1000):
                return None
    except psycopg2.Error as error:
        refused = REFUSED.search(str(error))
        return refused[1] if refused else None
    except (AttributeError, OSError, ValueError):  # another psycopg2 or libpq: the driver's error is enough
        return None
    finally:
        if connection is not None:
            connection.close()
    return None
