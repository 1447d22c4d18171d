"""Stored values are encrypted again with the first key, and stay readable with it alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from cryptography.fernet import Fernet
former, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
os.environ |= {
    "AIRFLOW_HOME": sys.argv[1],
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{sys.argv[1]}/airflow.db",
    "AIRFLOW__CORE__FERNET_KEY": former,
}
from airflow.configuration import conf
from airflow.models import Connection, Trigger, Variable, crypto
from airflow.models.connection_test import ConnectionTestRequest
from airflow.models.team import Team
from airflow.settings import engine
from airflow.utils.session import create_session
from airflow_ha import fernet_rotation
from sqlalchemy.orm import lazyload

for model in (Team, Connection, ConnectionTestRequest, Trigger, Variable):
    model.__table__.create(engine)
fernet_rotation.BATCH = 2


def use(*keys):
    conf.set("core", "fernet_key", ",".join(keys))
    crypto.get_fernet.cache_clear()


def stored():
    with create_session() as session:
        return (
            [(each.password, each.extra) for each in session.query(Connection).order_by(Connection.conn_id)],
            [each.get_val() for each in session.query(Variable).order_by(Variable.key)],
            [each.kwargs for each in session.query(Trigger).options(lazyload("*")).order_by(Trigger.id)],
        )


with create_session() as session:
    for number in range(5):
        session.add(Connection(conn_id=f"c{number}", conn_type="http", password=f"password {number}", extra='{"a": 1}'))
        session.add(Variable(key=f"v{number}", val=f"value {number}"))
        session.add(Trigger(classpath="a.B", kwargs={"number": number}))
before = stored()
assert before[1] == [f"value {number}" for number in range(5)], before
use(new, former)
assert fernet_rotation.encrypt_again() == 15
assert fernet_rotation.encrypt_again() == 15
use(new)
assert stored() == before
print("rotated")
"""


def test_values_are_readable_with_the_new_key_alone(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parent)  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["rotated"], done.stdout + done.stderr
