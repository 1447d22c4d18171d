"""The length of a password, in FAB's forms with the file that the API servers mount."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_ha import passwords
from tests.unit.compose.model import COMPOSE, compose_model


@pytest.fixture
def form():
    """FAB's form of a new password, with our settings."""
    from flask import Flask
    from flask_appbuilder.validators import PasswordComplexityValidator
    from wtforms import Form, PasswordField

    app = Flask(__name__)
    app.config.from_pyfile(str(COMPOSE / "api-server/webserver_config.py"))

    class NewPassword(Form):
        password = PasswordField(validators=[PasswordComplexityValidator()])

    with app.app_context():
        yield lambda password: NewPassword(data={"password": password})


def test_fab_refuses_11_characters_and_accepts_12(form):
    short, long = form("x" * (passwords.MIN_LENGTH - 1)), form("x" * passwords.MIN_LENGTH)
    assert not short.validate()
    assert short.password.errors == [f"A password has at least {passwords.MIN_LENGTH} characters."]
    assert long.validate()


def test_api_servers_mount_fabs_settings_where_airflow_reads_them():
    from airflow.configuration import AIRFLOW_HOME, conf

    name = Path(conf.get_mandatory_value("fab", "config_file")).relative_to(AIRFLOW_HOME)
    mount = f"./api-server/webserver_config.py:/opt/airflow/{name}:ro"
    assert mount in compose_model()["services"]["api-server"]["volumes"]
