"""A session is stored in the database after a log-in only, and for no longer than it is valid.

Problem: each request for the log-in page without a cookie stores a row in the table `session`, which lives for 30 days
and which nothing deletes. Anyone fills the database, and above 50,000 rows a new password ends no session of its user.
Patch: a session without a user is kept in a signed cookie, as with `[fab] session_backend = securecookie`; one with a
user stays in the database, where a new password ends it. One request in CLEANUP_REQUESTS deletes expired rows.
Applies to: `airflow.providers.fab.www.session.AirflowDatabaseSessionInterface`.
Upstream issue: none found.
Remove when: `test_upstream_stores_a_session_without_a_user` fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from airflow.providers.fab.www.session import AirflowDatabaseSessionInterface, AirflowSecureCookieSessionInterface

if TYPE_CHECKING:
    from flask import Flask, Request, Response

    Session: TypeAlias = Any
    """Flask-Session's ServerSideSession: a dictionary with flags."""

USER: Final = "_user_id"
"""The key of a session that a log-in sets (Flask-Login)."""
CLEANUP_REQUESTS: Final = 100

_init: Any = AirflowDatabaseSessionInterface.__init__
_open_session: Any = AirflowDatabaseSessionInterface.open_session
_save_session: Any = AirflowDatabaseSessionInterface.save_session
_cookies: Any = AirflowSecureCookieSessionInterface()


def init(self: AirflowDatabaseSessionInterface, *args: Any, **kwargs: Any) -> None:
    """Call the upstream method; delete expired rows from time to time."""
    _init(self, *args, **kwargs | {"cleanup_n_requests": CLEANUP_REQUESTS})


def open_session(self: AirflowDatabaseSessionInterface, app: Flask, request: Request) -> Session:
    """Return the session of a signed cookie, if that has no user; otherwise call the upstream method."""
    data = _cookies.open_session(app, request)
    if data and USER not in data:
        return self.session_class(dict(data), sid=self._generate_sid(self.sid_length))
    stored = _open_session(self, app, request)
    stored.is_stored = bool(stored)
    return stored


def save_session(self: AirflowDatabaseSessionInterface, app: Flask, session: Session, response: Response) -> None:
    """Write a session without a user into a signed cookie; otherwise call the upstream method."""
    if USER in session or not session:
        _save_session(self, app, session, response)
        return
    if getattr(session, "is_stored", False):  # its user has logged out
        self._delete_session(self._get_store_id(session.sid))
    # Plain values: a message may be a lazy translation.
    plain = self.session_class(self.serializer.loads(self.serializer.dumps(session)))
    plain.accessed, plain.modified = session.accessed, session.modified
    _cookies.save_session(app, plain, response)


def apply() -> None:
    """Keep sessions without a user out of the database."""
    interface: Any = AirflowDatabaseSessionInterface
    interface.__init__ = init
    interface.open_session = open_session
    interface.save_session = save_session
