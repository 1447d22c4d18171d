"""Airflow's own signers and verifiers with the keys and settings of the compose files."""

from __future__ import annotations

import os
import time

import jwt
import pytest
from airflow.api_fastapi.auth.tokens import JWTGenerator, JWTValidator, get_sig_validation_args, get_signing_args

from ops import rotation_state, secrets_store, token_keys
from ops.compose import Instance
from ops.errors import StackError
from ops.project import ROOT, Project
from tests.unit.compose.model import compose_model

SERVICES = compose_model()["services"]
AUDIENCE = "urn:airflow.apache.org:task"
SIGNERS = {"scheduler": "tasks", "execution-api": "tasks", "api-server": "users"}
VERIFIERS = {"execution-api": "tasks", "api-server": "users"}


@pytest.fixture
def made(tmp_path) -> Project:
    project = Project(ROOT, tmp_path / "state")
    secrets_store.generate(project)
    return project


@pytest.fixture
def component(made, tmp_path, monkeypatch):
    """Return a function that gives this process the settings and the files of a component."""

    def become(service: str) -> None:
        folder = tmp_path / service
        folder.mkdir(exist_ok=True)
        value = rotation_state.in_use(made, secrets_store.generated_values(made))
        for name, text in token_keys.mounted_files(made, value).items():
            if name.partition("/")[2] in SERVICES[service]["secrets"]:
                (folder / name.partition("/")[2]).write_text(text)
        for key in [key for key in os.environ if key.startswith("AIRFLOW__API_AUTH__")]:
            monkeypatch.delenv(key)
        for key, text in SERVICES[service]["environment"].items():
            if key.startswith("AIRFLOW__API_AUTH__"):
                monkeypatch.setenv(key, str(text).replace("/run/secrets", str(folder)))

    return become


@pytest.fixture
def signed(component):
    """Return a function that signs a token as a component does."""

    def sign(service: str) -> str:
        component(service)
        return JWTGenerator(valid_for=60, audience=AUDIENCE, **get_signing_args(False)).generate({"sub": "x"})

    return sign


@pytest.fixture
def is_accepted(component):
    """Return a function that verifies a token as a component does."""

    def verify(service: str, token: str) -> bool:
        component(service)
        validator = JWTValidator(audience=AUDIENCE, **get_sig_validation_args(False))
        try:
            return validator.validated_claims(token)["sub"] == "x"
        except jwt.InvalidTokenError:
            return False

    return verify


def test_a_token_is_accepted_for_its_own_kind_only(signed, is_accepted):
    tokens = {signer: signed(signer) for signer in SIGNERS}
    accepted = {(who, where) for who in SIGNERS for where in VERIFIERS if is_accepted(where, tokens[who])}
    assert accepted == {(who, where) for who in SIGNERS for where in VERIFIERS if SIGNERS[who] == VERIFIERS[where]}


def test_airflow_derives_the_same_id_of_a_key(made, signed):
    published = token_keys.public_key(secrets_store.read(made, token_keys.TASKS))
    assert jwt.get_unverified_header(signed("scheduler")) == {
        "alg": "EdDSA",
        "typ": "JWT",
        "kid": published["kid"],
    }


def test_a_public_key_is_no_secret_to_sign_with(made, is_accepted):
    published = token_keys.public_key(secrets_store.read(made, token_keys.TASKS))
    now = int(time.time())
    claims = {"sub": "x", "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 60}
    for algorithm in ("HS256", "HS512"):
        token = jwt.encode(claims, published["x"], algorithm=algorithm, headers={"kid": published["kid"]})
        assert not is_accepted("execution-api", token)


def former_token(secret: str) -> str:
    return JWTGenerator(valid_for=60, audience=AUDIENCE, private_key=None, secret_key=secret).generate({"sub": "x"})


def test_a_token_of_the_former_secret_is_accepted_for_tasks_only(made, component, is_accepted):
    secret = "s" * 64
    (made.secrets / token_keys.FORMER).write_text(secret + "\n")
    component("execution-api")
    token = former_token(secret)
    assert is_accepted("execution-api", token)
    assert not is_accepted("execution-api", former_token("t" * 64))
    assert not is_accepted("api-server", token)
    (made.secrets / token_keys.FORMER).unlink()
    assert not is_accepted("execution-api", token)


def verifier(created: float) -> Instance:
    return Instance(id="execution-api-1", state="running", health="healthy", created=created)


def test_the_former_secret_stays_while_its_tokens_may_be_valid(made):
    path = made.secrets / token_keys.FORMER
    path.write_text("s" * 64 + "\n")
    now = time.time()
    switched = now - 2 * token_keys.FORMER_SECONDS
    os.utime(made.secrets / token_keys.TASKS, (switched, switched))
    assert not token_keys.forget_former(made, []), "no container shows since when the new key signs"
    assert not token_keys.forget_former(made, [verifier(switched - 1), verifier(now)]), "one has the former secret"
    assert not token_keys.forget_former(made, [verifier(now - token_keys.FORMER_SECONDS + 10)])
    assert path.exists()
    assert token_keys.forget_former(made, [verifier(now - token_keys.FORMER_SECONDS - 10)])
    assert not path.exists()


def test_a_damaged_key_is_refused_with_its_file(made):
    for text in ("x" * 64, "é", "AAAA", token_keys.private_key()[:-8]):
        (made.secrets / token_keys.USERS).write_text(text + "\n")
        with pytest.raises(StackError, match=token_keys.USERS):
            secrets_store.check(made, lambda: True)
