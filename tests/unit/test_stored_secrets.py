"""The secrets in Connections and Variables."""

from __future__ import annotations

import json

from airflow_ha.stored_secrets import StoredConnection, secrets_of


def test_password_and_extra_of_a_connection_are_secrets():
    extra = {"token": "ab", "region": "eu", "nested": {"private_key": "k"}, "account": "long-enough", "port": 5}
    text = json.dumps(extra)
    connection = StoredConnection("airflow", "pw", "https://hooks.slack.com/services/T1/longsecret", text)
    assert secrets_of([connection], []) == {
        "pw",
        "ab",
        "k",
        "long-enough",
        text,
        "services",
        "longsecret",
    }


def test_access_key_as_log_in_is_a_secret():
    assert secrets_of([StoredConnection("EXAMPLEACCESSKEY1234", "", "", "")], []) == {"EXAMPLEACCESSKEY1234"}


def test_variable_is_a_secret_by_name_or_length():
    variables = [
        ("api_token", "x"),
        ("mode", "fast"),
        ("note", "long enough"),
        ("monitoring_memory", "a long value of the stack"),
        ("settings", '{"db": {"password": "pw"}, "list": ["a-long-string"]}'),
    ]
    found = secrets_of([], variables)
    assert {"x", "long enough", "pw", "a-long-string"} <= found
    assert found.isdisjoint({"fast", "a long value of the stack"})


def test_password_of_a_url_in_a_variable_is_a_secret():
    assert "p/w" in secrets_of([], [("warehouse", "postgresql://etl:p%2Fw@warehouse/db")])


def test_extra_in_a_string_of_json_is_read():
    nested = json.dumps({"extra": json.dumps({"password": "inner"})})
    assert "inner" in secrets_of([StoredConnection("", "", "", nested)], [])
