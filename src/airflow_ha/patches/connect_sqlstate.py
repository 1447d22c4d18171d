"""The SQLSTATE with which Postgres refuses a connection: libpq knows it, and psycopg2 does not pass it on.

Seen with psycopg2 2.9.13 (libpq 17) and psycopg 3.3.6 (libpq 18): after a refused connection `pgcode`, `sqlstate` and
`diag` are all None, and libpq's trace leaves the refusal out. What is left is the message, in the language of the
server's `lc_messages`. With PQERRORS_SQLSTATE libpq writes the state in place of that message:
https://www.postgresql.org/docs/17/libpq-control.html#LIBPQ-PQSETERRORVERBOSITY. It can only be set on a connection
that has begun, so the connection is tried once more, by the asynchronous interface.
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
"""The last node's refusal ends the message: after a failed authentication libpq tries no other."""


def connect_sqlstate(cargs: Sequence[Any], cparams: Mapping[str, Any], seconds: float) -> str | None:
    """Return the state with which a server refuses a connection; None when none does, or none answers in time.

    Args:
        cargs: Of psycopg2's `connect`.
        cparams: The same, by name.
        seconds: How long it may take; asynchronous connections ignore `connect_timeout`.
    """
    deadline = time.monotonic() + seconds
    connection: Any = None
    try:
        connection = psycopg2.connect(*cargs, **{**cparams, "async_": 1})
        # The extension's own handle also finds the symbols of the libpq that it is linked to.
        libpq = ctypes.CDLL(_psycopg.__file__)
        libpq.PQsetErrorVerbosity(ctypes.c_void_p(connection.pgconn_ptr), PQERRORS_SQLSTATE)
        while (state := connection.poll()) != extensions.POLL_OK:
            left = max(0.0, deadline - time.monotonic())
            waiting = select.poll()  # select.select knows no descriptor above 1023
            waiting.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
            if not waiting.poll(left * 1000):
                return None
    except psycopg2.Error as error:
        refused = REFUSED.search(str(error))
        return refused[1] if refused else None
    except (AttributeError, OSError, ValueError):  # another psycopg2 or libpq: the driver's own error says enough
        return None
    finally:
        if connection is not None:
            connection.close()
    return None
