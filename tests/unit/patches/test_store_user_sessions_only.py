"""Only a log-in stores a session in the database."""

from __future__ import annotations

from datetime import timedelta

import flask
import pytest
from airflow.providers.fab.www.session import AirflowDatabaseSessionInterface, AirflowSecureCookieSessionInterface
from flask_babel import Babel, lazy_gettext
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text, update

from tests.unit.patches.loading import applied

pytestmark = pytest.mark.filterwarnings("ignore:The 'use_signer' option is deprecated")

USER = "7"


@pytest.fixture
def patch():
    with applied("store_user_sessions_only", AirflowDatabaseSessionInterface) as module:
        yield module


class Site:
    """A site with the pages of a log-in, and its table of sessions."""

    def __init__(self) -> None:
        self.app = flask.Flask(__name__)
        self.app.secret_key = "k" * 32
        self.app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        Babel(self.app)
        self.app.permanent_session_lifetime = timedelta(days=30)
        self.db = SQLAlchemy(self.app)
        self.app.session_interface = AirflowDatabaseSessionInterface(
            app=self.app, client=self.db, permanent=True, table="session", key_prefix="", use_signer=True
        )
        self.app.add_url_rule("/form", view_func=self.form)
        self.app.add_url_rule("/login", view_func=self.login)
        self.app.add_url_rule("/logout", view_func=self.logout)
        self.app.add_url_rule("/session", view_func=lambda: dict(flask.session))

    def form(self) -> str:
        flask.session["csrf_token"] = "token"
        return "form"

    def login(self) -> str:
        if flask.session.get("csrf_token") != "token":
            flask.abort(400)
        flask.session.sid = "rotated"
        flask.session["_user_id"] = USER
        return "in"

    def logout(self) -> str:
        flask.session.pop("_user_id")
        flask.session["_flashes"] = [["info", lazy_gettext("Logged out")]]
        return "out"

    def rows(self) -> int:
        with self.app.app_context():
            return int(self.db.session.execute(text("select count(*) from session")).scalar_one())


@pytest.fixture
def site(patch):
    return Site()


def test_upstream_stores_a_session_without_a_user():
    """If this fails, upstream stores sessions of users only: delete the patch."""
    site = Site()
    for _ in range(3):
        site.app.test_client().get("/form")
    assert site.rows() == 3


def test_page_without_a_log_in_stores_nothing(site):
    browser = site.app.test_client()
    assert browser.get("/form").headers["Set-Cookie"]
    assert browser.get("/session").json["csrf_token"] == "token"
    assert site.rows() == 0


def test_log_in_is_stored_and_found_again(site):
    browser = site.app.test_client()
    browser.get("/form")
    assert browser.get("/login").status_code == 200
    assert browser.get("/session").json["_user_id"] == USER
    assert site.rows() == 1


def test_deleted_row_ends_the_session(site):
    browser = site.app.test_client()
    browser.get("/form")
    browser.get("/login")
    with site.app.app_context():
        site.db.session.execute(text("delete from session"))
        site.db.session.commit()
    assert "_user_id" not in browser.get("/session").json


def test_log_out_deletes_the_row(site):
    browser = site.app.test_client()
    browser.get("/form")
    browser.get("/login")
    stolen = browser.get_cookie("session").value
    browser.get("/logout")
    assert site.rows() == 0
    assert browser.get("/session").json["_flashes"] == [["info", "Logged out"]]
    thief = site.app.test_client()
    thief.set_cookie("session", stolen)
    assert "_user_id" not in thief.get("/session").json


@pytest.mark.parametrize("key", ["k" * 32, "another key"])
def test_signed_cookie_with_a_user_is_refused(site, key):
    forged = flask.Flask("forged")
    forged.secret_key = key
    value = AirflowSecureCookieSessionInterface().get_signing_serializer(forged).dumps({"_user_id": USER})
    browser = site.app.test_client()
    browser.set_cookie("session", value)
    assert "_user_id" not in browser.get("/session").json


def test_expired_rows_are_deleted(site, patch, monkeypatch):
    for _ in range(3):
        browser = site.app.test_client()
        browser.get("/form")
        browser.get("/login")
    interface = site.app.session_interface
    assert interface.cleanup_n_requests == patch.CLEANUP_REQUESTS
    with site.app.app_context():
        model = interface.sql_session_model
        site.db.session.execute(update(model).values(expiry=text("datetime('now', '-1 day')")))
        site.db.session.commit()
    monkeypatch.setattr("flask_session.base.random.randint", lambda *_: 0)
    site.app.test_client().get("/form")
    assert site.rows() == 0
